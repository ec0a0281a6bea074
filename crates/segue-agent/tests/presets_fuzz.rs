//! No output, however broken, makes the presets panic or lose the thread.

use proptest::collection::vec;
use proptest::prelude::*;
use segue_agent::presets::{Exit, Invocation, LineWatcher, Output, Preset, command_line, parse};

const SAMPLES: &[&[u8]] = &[
    include_bytes!("data/presets/claude-budget.json"),
    include_bytes!("data/presets/claude-schema.json"),
    include_bytes!("data/presets/claude-stream-429.jsonl"),
    include_bytes!("data/presets/claude-stream-tool-partial.jsonl"),
    include_bytes!("data/presets/codex-error.jsonl"),
    include_bytes!("data/presets/codex-ok.jsonl"),
    include_bytes!("data/presets/gemini-error-stderr.json"),
    include_bytes!("data/presets/gemini-ok.json"),
    include_bytes!("data/presets/gemini-stream.jsonl"),
    include_bytes!("data/presets/opencode-error.jsonl"),
    include_bytes!("data/presets/opencode-ok.jsonl"),
];

fn check(preset: Preset, stdout: &[u8], stderr: &[u8], exit: Exit, file: Option<&[u8]>) {
    let output = Output { stdout, stderr, exit, result_file: file };
    let parsed = parse(preset, &output);
    if let Err(failure) = &parsed.result {
        assert!(!failure.message.is_empty() && failure.message.len() < 5_000);
    }
    assert!(parsed.notes.len() <= 32 && parsed.denials.len() <= 256);
    let usage = &parsed.usage;
    if matches!(preset, Preset::Claude | Preset::Opencode) {
        assert!(usage.cached_input_tokens <= usage.input_tokens);
    }
    assert!(usage.cost_usd.is_none_or(|cost| cost.is_finite() && cost >= 0.0));
    assert_eq!(parsed, parse(preset, &output), "the same bytes mean the same");
    serde_json::to_string(&parsed).unwrap();
    let mut watcher = LineWatcher::new(preset);
    for line in stdout.split_inclusive(|byte| *byte == b'\n') {
        watcher.line(line);
    }
}

fn presets() -> impl Strategy<Value = Preset> {
    proptest::sample::select(Preset::ALL.as_slice())
}

fn exits() -> impl Strategy<Value = Exit> {
    prop_oneof![
        (0..256).prop_map(Exit::code),
        (1..32).prop_map(Exit::signal),
        any::<i32>().prop_map(Exit::code),
        Just(Exit::default()),
    ]
}

/// One change to a real output.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize, usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
    Append(usize),
}

fn changes() -> impl Strategy<Value = Change> {
    let tokens = proptest::sample::select(vec![
        b"null".to_vec(),
        b"\0".to_vec(),
        b"\xff\xfe".to_vec(),
        b"\n".to_vec(),
        b"{".to_vec(),
        b"}".to_vec(),
        b"[".to_vec(),
        b"\"".to_vec(),
        b"-1".to_vec(),
        b"1e999".to_vec(),
        b"99999999999999999999".to_vec(),
        b"\\ud800".to_vec(),
        b"true".to_vec(),
        b"noise {\"type\":\"result\"} noise".to_vec(),
    ]);
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        (any::<usize>(), 0..400_usize).prop_map(|(at, len)| Change::Cut(at, len)),
        (any::<usize>(), tokens).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<usize>(), 0..400_usize).prop_map(|(at, len)| Change::Repeat(at, len)),
        (0..SAMPLES.len()).prop_map(Change::Append),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: Change) {
    let place = |at: usize, bytes: &[u8]| at % (bytes.len() + 1);
    match change {
        Change::Flip(at, byte) => {
            let at = place(at, bytes);
            if let Some(found) = bytes.get_mut(at) {
                *found = byte;
            }
        }
        Change::Cut(at, len) => {
            let at = place(at, bytes);
            let end = (at + len).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::Insert(at, more) => {
            let at = place(at, bytes);
            bytes.splice(at..at, more);
        }
        Change::Repeat(at, len) => {
            let at = place(at, bytes);
            let piece = bytes[at..(at + len).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        Change::Append(sample) => bytes.extend_from_slice(SAMPLES[sample]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(
        preset in presets(),
        stdout in vec(any::<u8>(), 0..300),
        stderr in vec(any::<u8>(), 0..100),
        exit in exits(),
        file in proptest::option::of(vec(any::<u8>(), 0..50)),
    ) {
        check(preset, &stdout, &stderr, exit, file.as_deref());
    }

    #[test]
    fn any_json_like_lines(
        preset in presets(),
        stdout in "(\\{?\"?(type|result|error|item|usage|message|part)?\"?[:,]?[\\[\\]{}\"0-9a-z\\\\. -]{0,12}\n?){0,40}",
        exit in exits(),
    ) {
        check(preset, stdout.as_bytes(), stdout.as_bytes(), exit, None);
    }

    #[test]
    fn changed_real_outputs(
        preset in presets(),
        sample in 0..SAMPLES.len(),
        changes in vec(changes(), 1..8),
        exit in exits(),
        on_stderr in any::<bool>(),
    ) {
        let mut bytes = SAMPLES[sample].to_vec();
        for change in changes {
            apply(&mut bytes, change);
        }
        if on_stderr {
            check(preset, b"", &bytes, exit, None);
        } else {
            check(preset, &bytes, b"", exit, None);
        }
    }

    /// Whatever is asked for, what comes out can be started.
    #[test]
    fn any_invocation(
        preset in presets(),
        prompt in any::<String>(),
        model in proptest::option::of(any::<String>()),
        system in proptest::option::of(any::<String>()),
        session in proptest::option::of(any::<String>()),
        extra in vec(any::<String>(), 0..3),
    ) {
        let asked = Invocation {
            prompt: &prompt,
            model: model.as_deref(),
            system_prompt: system.as_deref(),
            resume_session: session.as_deref(),
            extra_args: &extra,
            ..Invocation::default()
        };
        match command_line(preset, &asked) {
            Ok(command) => {
                prop_assert!(command.stdin.is_some());
                for arg in &command.args {
                    prop_assert!(!arg.as_encoded_bytes().contains(&0));
                }
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
