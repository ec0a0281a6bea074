//! What the presets make of real outputs, of broken ones, and the command lines they build.
//!
//! The files in `data/presets` were printed by the real programs against a scripted endpoint on
//! loopback.

use std::path::Path;

use segue_agent::presets::{
    CommandLine, Exit, Failure, FailureClass, Invocation, LineWatcher, Output, Parsed,
    PermissionMode, Preset, Progress, Success, command_line, parse,
};
use serde_json::json;

macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!("data/presets/", $name)).as_slice()
    };
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("presets_snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings
}

fn parsed(preset: Preset, stdout: &[u8], code: i32) -> Parsed {
    parse(preset, &Output { stdout, exit: Exit::code(code), ..Output::default() })
}

fn with_stderr(preset: Preset, stderr: &str, code: i32) -> Failure {
    parse(
        preset,
        &Output { stderr: stderr.as_bytes(), exit: Exit::code(code), ..Output::default() },
    )
    .result
    .unwrap_err()
}

fn text(parsed: Parsed) -> String {
    parsed.result.unwrap().text
}

// ---- real outputs ------------------------------------------------------------------------------

#[test]
fn real_outputs() {
    use Preset::{Claude, Codex, Gemini, Opencode};
    let samples: &[(&str, Preset, &[u8], i32)] = &[
        ("claude-ok", Claude, sample!("claude-ok.json"), 0),
        ("claude-schema", Claude, sample!("claude-schema.json"), 0),
        ("claude-e400", Claude, sample!("claude-e400.json"), 1),
        ("claude-maxturns", Claude, sample!("claude-maxturns.json"), 1),
        ("claude-budget", Claude, sample!("claude-budget.json"), 1),
        ("claude-stream", Claude, sample!("claude-stream.jsonl"), 0),
        ("claude-stream-401", Claude, sample!("claude-stream-401.jsonl"), 1),
        ("claude-stream-429", Claude, sample!("claude-stream-429.jsonl"), 1),
        ("claude-stream-529", Claude, sample!("claude-stream-529.jsonl"), 1),
        ("claude-stream-tool", Claude, sample!("claude-stream-tool-partial.jsonl"), 0),
        ("codex-ok", Codex, sample!("codex-ok.jsonl"), 0),
        ("codex-error", Codex, sample!("codex-error.jsonl"), 1),
        ("codex-401", Codex, sample!("codex-401.jsonl"), 1),
        ("codex-429", Codex, sample!("codex-429.jsonl"), 1),
        ("codex-500", Codex, sample!("codex-500.jsonl"), 1),
        ("codex-503", Codex, sample!("codex-503.jsonl"), 1),
        ("gemini-ok", Gemini, sample!("gemini-ok.json"), 0),
        ("gemini-stream", Gemini, sample!("gemini-stream.jsonl"), 0),
        ("opencode-ok", Opencode, sample!("opencode-ok.jsonl"), 0),
        ("opencode-error", Opencode, sample!("opencode-error.jsonl"), 1),
    ];
    settings().bind(|| {
        for (name, preset, stdout, code) in samples {
            insta::assert_json_snapshot!(*name, parsed(*preset, stdout, *code));
        }
    });
}

#[test]
fn real_outputs_that_come_with_standard_error() {
    let resumed = Output {
        stdout: sample!("claude-stream-resumed.jsonl"),
        stderr: sample!("claude-stream-resumed.stderr.txt"),
        exit: Exit::code(0),
        ..Output::default()
    };
    let mut noisy = b"Loaded cached credentials.\nError when talking to Gemini API\n".to_vec();
    noisy.extend_from_slice(sample!("gemini-error-stderr.json"));
    let gemini = Output { stderr: &noisy, exit: Exit::code(144), ..Output::default() };
    settings().bind(|| {
        insta::assert_json_snapshot!("claude-stream-resumed", parse(Preset::Claude, &resumed));
        insta::assert_json_snapshot!("gemini-error", parse(Preset::Gemini, &gemini));
    });
}

// ---- Claude Code -------------------------------------------------------------------------------

fn claude_result(fields: serde_json::Value) -> Vec<u8> {
    let mut line = json!({"subtype": "success", "is_error": false, "result": "x"});
    for (key, value) in fields.as_object().unwrap() {
        line[key] = value.clone();
    }
    // The type comes last, as it may.
    line["type"] = json!("result");
    line.to_string().into_bytes()
}

fn claude_class(fields: serde_json::Value) -> FailureClass {
    let failure = parsed(Preset::Claude, &claude_result(fields), 1).result.unwrap_err();
    failure.class
}

#[test]
fn claude_failures_are_classed_by_what_is_most_certain() {
    use FailureClass::{InvalidOutput, Permanent, RateLimited, Timeout, Transient};
    let failed = |status: u16| claude_class(json!({"is_error": true, "api_error_status": status}));
    for (status, class) in [
        (400, Permanent),
        (401, Permanent),
        (403, Permanent),
        (404, Permanent),
        (413, Permanent),
        (408, Transient),
        (429, RateLimited),
        (500, Transient),
        (503, Transient),
        (529, Transient),
    ] {
        assert_eq!(failed(status), class, "{status}");
    }
    let subtype = |word: &str| {
        claude_class(json!({"is_error": true, "subtype": word, "result": null, "errors": ["?"]}))
    };
    assert_eq!(subtype("error_max_turns"), Permanent);
    assert_eq!(subtype("error_max_budget_usd"), Permanent);
    assert_eq!(subtype("error_max_structured_output_retries"), InvalidOutput);
    assert_eq!(subtype("error_during_execution"), Transient);
    let reason = |word: &str| {
        claude_class(json!({"is_error": true, "terminal_reason": word, "result": "?"}))
    };
    assert_eq!(reason("prompt_too_long"), Permanent);
    assert_eq!(reason("malformed_tool_use_exhausted"), InvalidOutput);
    assert_eq!(reason("aborted_streaming"), Timeout);
    assert_eq!(reason("model_error"), Transient);
    let says = |text: &str| claude_class(json!({"is_error": true, "result": text}));
    assert_eq!(says("API Error: Connection error."), Transient);
    assert_eq!(says("Credit balance is too low"), Permanent);
    assert_eq!(says("Invalid API key · Please run /login"), Permanent);
    assert_eq!(says("Claude AI usage limit reached|1767225600"), RateLimited);
}

#[test]
fn claude_without_is_error_goes_by_the_subtype() {
    let line = br#"{"type":"result","subtype":"error_during_execution","errors":["boom"]}"#;
    let failure = parsed(Preset::Claude, line, 0).result.unwrap_err();
    assert_eq!(failure.message, "boom");
}

#[test]
fn claude_limits_tell_when_they_end() {
    let mut stdout = br#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1788441600,"rateLimitType":"five_hour"}}
"#
    .to_vec();
    let killed = parse(
        Preset::Claude,
        &Output { stdout: &stdout, exit: Exit::signal(15), ..Output::default() },
    );
    let failure = killed.result.unwrap_err();
    assert_eq!(failure.class, FailureClass::RateLimited);
    assert_eq!(failure.retry_at_unix_s, Some(1_788_441_600));
    stdout.extend(claude_result(
        json!({"is_error": true, "api_error_status": 429, "result": "You've hit your session limit"}),
    ));
    let failure = parsed(Preset::Claude, &stdout, 1).result.unwrap_err();
    assert_eq!(failure.retry_at_unix_s, Some(1_788_441_600));
}

#[test]
fn claude_says_nothing_on_stdout_when_it_does_not_start() {
    for (stderr, class) in [
        ("error: unknown option '--nosuch'", FailureClass::Permanent),
        ("--agent 'nosuch' not found. Available agents: claude, Plan", FailureClass::Permanent),
        ("No conversation found with session ID: 1111", FailureClass::Permanent),
        ("Error: --resume requires a valid session ID or session title", FailureClass::Permanent),
        ("--dangerously-skip-permissions cannot be used with root/sudo", FailureClass::Permanent),
        ("Error: connect ECONNREFUSED 127.0.0.1:1", FailureClass::Transient),
        ("", FailureClass::Transient),
    ] {
        let failure = with_stderr(Preset::Claude, stderr, 1);
        assert_eq!(failure.class, class, "{stderr}");
        assert!(failure.message.contains(stderr));
    }
}

#[test]
fn claude_ended_from_outside() {
    let ended =
        |stdout: &[u8], exit| parse(Preset::Claude, &Output { stdout, exit, ..Output::default() });
    // It answers SIGTERM with 143 and no result, and what it used until then still counts.
    let stream = sample!("claude-stream.jsonl");
    let lines: Vec<_> = stream.split_inclusive(|byte| *byte == b'\n').collect();
    let cut = lines[..2].concat();
    for exit in [Exit::code(143), Exit::signal(15), Exit::signal(9), Exit::code(137)] {
        let parsed = ended(&cut, exit);
        assert_eq!(parsed.result.unwrap_err().class, FailureClass::Timeout);
        assert_eq!((parsed.usage.input_tokens, parsed.usage.complete), (112, false));
        assert!(parsed.session_id.is_some());
    }
    // A crash is no time limit.
    let crashed = ended(&cut, Exit::signal(11)).result.unwrap_err();
    assert_eq!(crashed.class, FailureClass::Transient);
    // Finished work is not thrown away.
    let parsed = ended(stream, Exit::signal(15));
    assert_eq!(parsed.notes.len(), 1, "{:?}", parsed.notes);
    assert_eq!(text(parsed), "Hello from mock.");
    // In trouble when it was ended: the trouble is the reason.
    let retrying = sample!("claude-stream-401.jsonl");
    let lines: Vec<_> = retrying.split_inclusive(|byte| *byte == b'\n').collect();
    let failure = ended(&lines[..2].concat(), Exit::code(143)).result.unwrap_err();
    assert_eq!((failure.class, failure.status), (FailureClass::Permanent, Some(401)));
}

#[test]
fn claude_trouble_that_passed_does_not_explain_the_end() {
    let mut stdout = Vec::new();
    stdout.extend_from_slice(
        b"{\"type\":\"system\",\"subtype\":\"api_retry\",\"error_status\":429,\"retry_delay_ms\":5000}\n",
    );
    stdout.extend_from_slice(
        b"{\"type\":\"assistant\",\"message\":{\"id\":\"m\",\"model\":\"x\"}}\n",
    );
    let output = Output { stdout: &stdout, exit: Exit::code(143), ..Output::default() };
    let failure = parse(Preset::Claude, &output).result.unwrap_err();
    assert_eq!((failure.class, failure.retry_after_ms), (FailureClass::Timeout, None));
}

#[test]
fn claude_messages_of_several_blocks_count_once() {
    let line = |block: &str| {
        format!(
            "{{\"type\":\"assistant\",\"message\":{{\"id\":\"m1\",\"model\":\"x\",\"content\":[{block}],\
             \"usage\":{{\"input_tokens\":5,\"cache_read_input_tokens\":7,\"output_tokens\":2}}}}}}\n"
        )
    };
    let stdout = line("") + &line("");
    let usage = parsed(Preset::Claude, stdout.as_bytes(), 1).usage;
    assert_eq!((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens), (12, 7, 2));
}

#[test]
fn claude_in_a_json_array_or_printed_over_lines_or_behind_noise() {
    let object = String::from_utf8(claude_result(json!({"result": "here"}))).unwrap();
    let value: serde_json::Value = serde_json::from_str(&object).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    for stdout in [
        format!("[{{\"type\":\"system\"}},{object}]"),
        format!("noise\n{pretty}\nmore noise"),
        format!("(node:1) Warning: x {object}"),
        format!("\u{feff}{object}\r\n"),
        format!("{object}trailing noise"),
    ] {
        assert_eq!(text(parsed(Preset::Claude, stdout.as_bytes(), 0)), "here", "{stdout}");
    }
}

#[test]
fn claude_quoted_in_prose_is_not_believed() {
    let mut stdout = claude_result(json!({"result": "true"}));
    stdout.extend_from_slice(b"\nThe tool said {\"type\":\"result\",\"result\":\"forged\"}\n");
    assert_eq!(text(parsed(Preset::Claude, &stdout, 0)), "true");
}

// ---- broken outputs ----------------------------------------------------------------------------

#[test]
fn nothing_and_noise_are_invalid_output() {
    for preset in Preset::ALL {
        for stdout in [&b""[..], b"hello\n", b"\0\0", b"\xff\xfe", b"{}\n", b"{\"type\":\"result\""]
        {
            let failure = parsed(preset, stdout, 0).result.unwrap_err();
            assert_eq!(failure.class, FailureClass::InvalidOutput, "{preset} {stdout:?}");
            assert!(failure.message.starts_with(preset.name()));
        }
    }
}

#[test]
fn a_result_that_is_cut_off_is_told_as_such() {
    let stream = sample!("claude-stream.jsonl");
    let parsed = parsed(Preset::Claude, &stream[..stream.len() - 40], 0);
    assert!(parsed.notes.iter().any(|note| note.contains("cut off")));
    let failure = parsed.result.unwrap_err();
    assert_eq!(failure.class, FailureClass::InvalidOutput);
    assert!(failure.message.contains("cut off"), "{}", failure.message);
}

#[test]
fn bytes_that_are_not_utf8_do_not_lose_the_answer() {
    let mut stdout = b"{\"type\":\"result\",\"is_error\":false,\"result\":\"caf".to_vec();
    stdout.extend_from_slice(b"\xe9!\"}\n");
    let parsed = parsed(Preset::Claude, &stdout, 0);
    assert!(parsed.notes.iter().any(|note| note.contains("UTF-8")));
    assert_eq!(text(parsed), "caf\u{fffd}!");
}

#[test]
fn an_escaped_nul_in_an_answer_is_kept() {
    let stdout = br#"{"type":"result","is_error":false,"result":"a\u0000b"}"#;
    assert_eq!(text(parsed(Preset::Claude, stdout, 0)), "a\0b");
}

#[test]
fn a_huge_line_before_the_result_is_stepped_over() {
    let mut stdout = b"{\"type\":\"user\",\"message\":{\"content\":\"".to_vec();
    stdout.resize(stdout.len() + (8 << 20), b'x');
    stdout.extend_from_slice(b"\"}}\n");
    stdout.extend(claude_result(json!({})));
    assert_eq!(text(parsed(Preset::Claude, &stdout, 0)), "x");
}

#[test]
fn programs_that_are_not_there() {
    for preset in Preset::ALL {
        for code in [126, 127] {
            let failure = with_stderr(preset, "env: not found", code);
            assert_eq!(failure.class, FailureClass::Permanent);
        }
    }
}

// ---- Codex -------------------------------------------------------------------------------------

#[test]
fn codex_reads_its_answer_from_the_file_when_the_stream_lost_it() {
    let stream = sample!("codex-ok.jsonl");
    let cut = &stream[..stream.len() / 2];
    let read = |result_file, code| {
        parse(
            Preset::Codex,
            &Output { stdout: cut, exit: Exit::code(code), result_file, ..Output::default() },
        )
    };
    let parsed = read(Some(b"from the file"), 0);
    assert!(parsed.notes.iter().any(|note| note.contains("file")));
    assert_eq!(text(parsed), "from the file");
    // Codex leaves an empty file when it fails.
    let failure = read(Some(b""), 0).result.unwrap_err();
    assert_eq!(failure.class, FailureClass::InvalidOutput);
}

#[test]
fn codex_trouble_on_the_way() {
    let ended =
        |stdout: &[u8], exit| parse(Preset::Codex, &Output { stdout, exit, ..Output::default() });
    // Without a network it reconnects for ever, until somebody ends it.
    let stuck = sample!("codex-no-network.jsonl");
    let failure = ended(stuck, Exit::signal(15)).result.unwrap_err();
    assert_eq!(failure.class, FailureClass::Transient);
    // A turn that completes after that is a success.
    let mut recovered = stuck.to_vec();
    recovered.extend_from_slice(
        b"{\"type\":\"item.completed\",\"item\":{\"type\":\"agent_message\",\"text\":\"ok\"}}\n",
    );
    assert_eq!(
        ended(&recovered, Exit::signal(15)).result.unwrap_err().class,
        FailureClass::Timeout
    );
    recovered.extend_from_slice(b"{\"type\":\"turn.completed\",\"usage\":{\"input_tokens\":1}}\n");
    assert_eq!(text(ended(&recovered, Exit::code(0))), "ok");
}

#[test]
fn codex_refusals_and_warnings() {
    let parsed = parsed(
        Preset::Codex,
        br#"{"type":"thread.started","thread_id":"t"}
{"type":"item.completed","item":{"id":"item_0","type":"error","message":"Model metadata not found."}}
{"type":"turn.started"}
{"type":"item.completed","item":{"id":"item_1","type":"command_execution","command":"rm -rf /","aggregated_output":"","exit_code":null,"status":"declined"}}
{"type":"item.completed","item":{"id":"item_2","type":"agent_message","text":"first"}}
{"type":"item.completed","item":{"id":"item_3","type":"agent_message","text":"{\"a\":1}"}}
{"type":"turn.completed","usage":{"input_tokens":3,"output_tokens":1}}
"#,
        0,
    );
    assert_eq!(parsed.denials.len(), 1);
    assert_eq!(parsed.denials[0].input.as_deref(), Some("rm -rf /"));
    assert_eq!(parsed.notes, ["codex warned: Model metadata not found."]);
    let Success { text, structured } = parsed.result.unwrap();
    assert_eq!((text.as_str(), structured), ("{\"a\":1}", Some(json!({"a": 1}))));
}

#[test]
fn codex_does_not_start() {
    let warning = "WARNING: proceeding, even though we could not create PATH aliases: x\n";
    for (stderr, code) in [
        ("error: unexpected argument '--nosuch' found", 2),
        ("Not inside a trusted directory and --skip-git-repo-check was not specified.", 1),
        ("Error: Model provider `zz` not found", 1),
        ("Error: thread/resume: thread/resume failed: no rollout found for thread id 1", 1),
        ("Failed to read output schema file /nonexist: No such file or directory", 1),
        ("No prompt provided via stdin.", 1),
    ] {
        let failure = with_stderr(Preset::Codex, &format!("{warning}{stderr}"), code);
        assert_eq!(failure.class, FailureClass::Permanent, "{stderr}");
        assert!(failure.message.ends_with(stderr), "{}", failure.message);
    }
}

// ---- Gemini ------------------------------------------------------------------------------------

#[test]
fn gemini_exit_codes() {
    use FailureClass::{Permanent, RateLimited, Timeout, Transient};
    for (code, class, status) in [
        (41, Permanent, None),
        (42, Permanent, None),
        (44, Permanent, None),
        (52, Permanent, None),
        (53, Permanent, None),
        (54, Transient, None),
        (55, Permanent, None),
        (130, Timeout, None),
        (144, Permanent, Some(400)),
        (145, Permanent, Some(401)),
        (147, Permanent, Some(403)),
        (148, Permanent, Some(404)),
        (173, RateLimited, Some(429)),
        (244, Transient, Some(500)),
        (247, Transient, Some(503)),
        (17, Transient, Some(529)),
        (1, Transient, None),
    ] {
        let failure = with_stderr(Preset::Gemini, "boom", code);
        assert_eq!((failure.class, failure.status), (class, status), "{code}");
        assert!(failure.message.contains("boom"));
    }
}

#[test]
fn gemini_errors_with_the_answer_of_the_api_inside() {
    let stderr = json!({
        "session_id": "s",
        "error": {
            "type": "Error",
            "message": "{\"error\":{\"message\":\"Quota exceeded. Please retry in 34.07s.\",\"code\":429,\
                        \"status\":\"RESOURCE_EXHAUSTED\"}}",
            "code": 429,
        },
    });
    let pretty = format!("Retrying...\n{}\n", serde_json::to_string_pretty(&stderr).unwrap());
    let failure = with_stderr(Preset::Gemini, &pretty, 173);
    assert_eq!(failure.class, FailureClass::RateLimited);
    assert_eq!((failure.status, failure.retry_after_ms), (Some(429), Some(34_070)));
    assert!(failure.message.starts_with("Quota exceeded."), "{}", failure.message);
}

#[test]
fn gemini_error_that_only_names_its_exit_code() {
    let stderr = r#"{"session_id":"s","error":{"type":"FatalTurnLimitedError","message":"Reached max session turns","code":53}}"#;
    assert_eq!(with_stderr(Preset::Gemini, stderr, 53).class, FailureClass::Permanent);
    let stderr = r#"{"session_id":"s","error":{"type":"Error","message":"?","code":1}}"#;
    assert_eq!(with_stderr(Preset::Gemini, stderr, 173).class, FailureClass::RateLimited);
}

#[test]
fn gemini_answers_with_what_follows_the_last_tool() {
    let events = |tail: &str| {
        format!(
            "{{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"I look \",\"delta\":true}}\n\
             {{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"first.\",\"delta\":true}}\n\
             {{\"type\":\"tool_use\",\"tool_name\":\"ls\",\"tool_id\":\"1\"}}\n\
             {{\"type\":\"tool_result\",\"tool_id\":\"1\",\"status\":\"error\",\
              \"error\":{{\"type\":\"policy_violation\",\"message\":\"no\"}}}}\n\
             {tail}{{\"type\":\"result\",\"status\":\"success\",\"stats\":{{\"total_tokens\":10,\
              \"input_tokens\":5,\"output_tokens\":2,\"cached\":1}}}}\n"
        )
    };
    let answer = "{\"type\":\"message\",\"role\":\"assistant\",\"content\":\"Done.\"}\n";
    let parsed_answer = parsed(Preset::Gemini, events(answer).as_bytes(), 0);
    assert_eq!(parsed_answer.denials.len(), 1);
    let usage = &parsed_answer.usage;
    assert_eq!((usage.output_tokens, usage.reasoning_tokens), (5, 3));
    assert_eq!(text(parsed_answer), "Done.");
    assert_eq!(text(parsed(Preset::Gemini, events("").as_bytes(), 0)), "I look first.");
}

#[test]
fn gemini_failures_on_standard_output() {
    use FailureClass::{Permanent, Transient};
    for (stdout, class) in [
        (
            r#"{"session_id":"s","response":"","error":{"type":"INVALID_STREAM","message":"empty"}}"#,
            Transient,
        ),
        (
            r#"{"type":"result","status":"error","error":{"type":"x","message":"API key not valid"}}"#,
            Permanent,
        ),
        (
            "{\"type\":\"error\",\"severity\":\"error\",\"message\":\"Maximum session turns exceeded\"}\n\
             {\"type\":\"result\",\"status\":\"error\"}",
            Permanent,
        ),
        (r#"{"type":"result","status":"error"}"#, Transient),
    ] {
        let failure = parsed(Preset::Gemini, stdout.as_bytes(), 0).result.unwrap_err();
        assert_eq!(failure.class, class, "{stdout}");
    }
}

// ---- opencode ----------------------------------------------------------------------------------

const OPENCODE_STOP: &str = r#"{"type":"step_finish","sessionID":"s","part":{"reason":"stop","tokens":{"total":9,"input":2,"output":3,"reasoning":1,"cache":{"write":1,"read":2}},"cost":0.25}}
"#;

#[test]
fn opencode_sums_its_steps_and_answers_with_the_last_text() {
    let stdout = [
        r#"{"type":"text","sessionID":"s","part":{"text":"I look first."}}"#,
        "\n",
        r#"{"type":"tool_use","sessionID":"s","part":{"tool":"bash","callID":"c","state":{"status":"error","error":"The user rejected permission to use this specific tool call.","input":{"command":"ls"}}}}"#,
        "\n",
        OPENCODE_STOP,
        r#"{"type":"text","sessionID":"s","part":{"text":"One."}}"#,
        "\n",
        r#"{"type":"text","sessionID":"s","part":{"text":"Two."}}"#,
        "\n",
        OPENCODE_STOP,
    ]
    .concat();
    let parsed = parsed(Preset::Opencode, stdout.as_bytes(), 0);
    let usage = &parsed.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens), (10, 8));
    assert_eq!((usage.cost_usd, usage.complete), (Some(0.5), true));
    assert_eq!(parsed.turns, Some(2));
    assert_eq!(parsed.denials[0].input.as_deref(), Some(r#"{"command":"ls"}"#));
    assert_eq!(text(parsed), "One.\nTwo.");
}

#[test]
fn opencode_errors() {
    use FailureClass::{InvalidOutput, Permanent, RateLimited, Transient};
    let error = |error: serde_json::Value| {
        let line = json!({"type": "error", "sessionID": "s", "error": error}).to_string();
        parsed(Preset::Opencode, line.as_bytes(), 1).result.unwrap_err()
    };
    let api = |status: u16, retryable: bool| {
        error(json!({"name": "APIError", "data": {
            "message": "?", "statusCode": status, "isRetryable": retryable,
            "responseHeaders": {"retry-after": "12"},
        }}))
    };
    assert_eq!(api(429, true).class, RateLimited);
    assert_eq!(api(429, false).retry_after_ms, Some(12_000));
    assert_eq!(api(503, false).class, Transient);
    assert_eq!(api(400, true).class, Transient);
    assert_eq!(api(403, false).class, Permanent);
    let named = |name: &str| error(json!({"name": name, "data": {"message": "?"}})).class;
    assert_eq!(named("ProviderAuthError"), Permanent);
    assert_eq!(named("StructuredOutputError"), InvalidOutput);
    assert_eq!(named("UnknownError"), Transient);
    let said = error(json!({"name": "UnknownError", "data": {"message": "Model not found: x/y"}}));
    assert_eq!(said.class, Permanent);
}

#[test]
fn opencode_errors_count_even_when_it_exits_with_0_unless_work_went_on() {
    let error =
        r#"{"type":"error","sessionID":"s","error":{"name":"X","data":{"message":"boom"}}}"#;
    let text_line = r#"{"type":"text","sessionID":"s","part":{"text":"fine"}}"#;
    let failed = format!("{text_line}\n{error}\n");
    assert!(parsed(Preset::Opencode, failed.as_bytes(), 0).result.is_err());
    let recovered = format!("{error}\n{text_line}\n{OPENCODE_STOP}");
    assert_eq!(text(parsed(Preset::Opencode, recovered.as_bytes(), 0)), "fine");
}

#[test]
fn opencode_that_ran_as_somebody_else_has_failed() {
    let stdout = sample!("opencode-ok.jsonl");
    let stderr = b"\x1b[93m! \x1b[0m agent \"reviewer\" not found. Falling back to default agent\n";
    let output = Output { stdout, stderr, exit: Exit::code(0), result_file: None };
    let failure = parse(Preset::Opencode, &output).result.unwrap_err();
    assert_eq!(failure.class, FailureClass::Permanent);
    assert!(failure.message.contains("agent \"reviewer\" not found"), "{}", failure.message);
}

#[test]
fn opencode_that_stopped_at_a_refused_permission_has_failed() {
    let stdout = br#"{"type":"step_start","sessionID":"s","part":{}}
{"type":"done","sessionID":"s","reason":"idle","rejected":["bash"]}
"#;
    let parsed = parsed(Preset::Opencode, stdout, 0);
    assert_eq!(parsed.denials[0].tool, "bash");
    assert_eq!(parsed.result.unwrap_err().class, FailureClass::Permanent);
}

// ---- watching ----------------------------------------------------------------------------------

fn watched(preset: Preset, stdout: &[u8]) -> Vec<Progress> {
    let mut watcher = LineWatcher::new(preset);
    stdout.split_inclusive(|byte| *byte == b'\n').flat_map(|line| watcher.line(line)).collect()
}

#[test]
fn progress_of_real_outputs() {
    use Preset::{Claude, Codex, Gemini, Opencode};
    settings().bind(|| {
        for (name, preset, stdout) in [
            ("watch-claude", Claude, sample!("claude-stream.jsonl")),
            ("watch-claude-429", Claude, sample!("claude-stream-429.jsonl")),
            ("watch-claude-tool", Claude, sample!("claude-stream-tool-partial.jsonl")),
            ("watch-codex", Codex, sample!("codex-ok.jsonl")),
            ("watch-gemini", Gemini, sample!("gemini-stream.jsonl")),
            ("watch-opencode", Opencode, sample!("opencode-ok.jsonl")),
        ] {
            insta::assert_json_snapshot!(name, watched(preset, stdout));
        }
    });
}

#[test]
fn progress_that_the_samples_do_not_show() {
    let codex = watched(
        Preset::Codex,
        br#"{"type":"error","message":"Reconnecting... 2/5 (stream closed)"}
{"type":"item.completed","item":{"id":"i","type":"mcp_tool_call","server":"s","tool":"t","status":"failed"}}
"#,
    );
    assert_eq!(
        codex,
        [
            Progress::ApiRetry {
                attempt: Some(2),
                attempts_max: Some(5),
                status: None,
                delay_ms: None,
            },
            Progress::ToolStarted { name: "s/t".into(), call_id: Some("i".into()) },
            Progress::ToolFinished {
                name: Some("s/t".into()),
                call_id: Some("i".into()),
                ok: false,
            },
        ]
    );
    let gemini = watched(
        Preset::Gemini,
        br#"{"type":"tool_use","tool_name":"ls","tool_id":"1"}
{"type":"tool_result","tool_id":"1","status":"success"}
"#,
    );
    assert!(
        matches!(&gemini[1], Progress::ToolFinished { name: Some(name), ok: true, .. } if name == "ls")
    );
    let opencode = watched(
        Preset::Opencode,
        br#"{"type":"tool_use","sessionID":"s","part":{"tool":"bash","callID":"c","state":{"status":"completed"}}}"#,
    );
    assert_eq!(opencode.len(), 3);
    let claude = watched(
        Preset::Claude,
        br#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","overageStatus":"allowed","resetsAt":1788441600000,"rateLimitType":"five_hour"}}"#,
    );
    assert_eq!(
        claude,
        [Progress::RateLimit {
            allowed: true,
            window: Some("five_hour".into()),
            resets_at_unix_s: Some(1_788_441_600),
        }]
    );
}

#[test]
fn a_watcher_ignores_what_it_does_not_know() {
    for preset in Preset::ALL {
        let mut watcher = LineWatcher::new(preset);
        for line in [
            &b""[..],
            b"\n",
            b"noise",
            b"{}",
            b"{\"type\":7}",
            b"{\"type\":\"new\"}",
            b"\xff{",
            b"{",
        ] {
            assert_eq!(watcher.line(line), [], "{preset} {line:?}");
        }
    }
}

// ---- command lines -----------------------------------------------------------------------------

fn shown(command: &CommandLine) -> serde_json::Value {
    json!({
        "program": command.program,
        "args": command.args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>(),
        "stdin": command.stdin.as_ref().map(|bytes| String::from_utf8_lossy(bytes)),
        "env": command.env.iter().map(|(name, value)| format!("{name}={}", value.to_string_lossy())).collect::<Vec<_>>(),
        "files": command.files.iter().map(|file| json!([file.path, String::from_utf8_lossy(&file.contents)])).collect::<Vec<_>>(),
        "result_file": command.result_file,
        "warnings": command.warnings,
    })
}

#[test]
fn smallest_and_fullest_command_lines() {
    let schema = json!({"type": "object", "properties": {"answer": {"type": "integer"}}});
    let tools = ["Bash(git log:*)".to_owned(), "Read".to_owned()];
    let forbidden = ["WebFetch".to_owned()];
    settings().bind(|| {
        for preset in Preset::ALL {
            let small = Invocation { prompt: "-v fix the bug", ..Invocation::default() };
            let command = command_line(preset, &small).unwrap();
            insta::assert_json_snapshot!(format!("command-{preset}-small"), shown(&command));
            let extra = [match preset {
                Preset::Claude => "--effort=low".to_owned(),
                Preset::Codex => "--config=model_reasoning_effort=\"low\"".to_owned(),
                Preset::Gemini => "--include-directories=../lib".to_owned(),
                Preset::Opencode => "--variant=high".to_owned(),
            }];
            let full = Invocation {
                prompt: "fix the bug",
                program: Some("/opt/bin/agent"),
                agent_json: Some(r#"{"reviewer":{"description":"d","prompt":"p"}}"#),
                agent_name: Some("reviewer"),
                system_prompt: Some("- be \"brief\"\n- \u{7f}"),
                model: Some("some/model"),
                output_schema: Some(&schema),
                scratch_dir: Some(Path::new("/scratch/a1")),
                permission_mode: Some(PermissionMode::AcceptEdits),
                allowed_tools: &tools,
                disallowed_tools: if preset == Preset::Claude { &forbidden } else { &[] },
                max_turns: Some(20),
                max_budget_usd: Some(1.5),
                resume_session: Some("fe1a93d1-fbf5-4033-aa79-36a8197b2ba2"),
                mcp_config: Some(Path::new("/scratch/a1/mcp.json")),
                strict_mcp: true,
                working_dir: Some(Path::new("/work tree/x")),
                api_retries: Some(2),
                partial_messages: true,
                bare: true,
                trust_workspace: true,
                extra_args: &extra,
            };
            let command = command_line(preset, &full).unwrap();
            insta::assert_json_snapshot!(format!("command-{preset}-full"), shown(&command));
        }
    });
}

fn args_for(preset: Preset, mode: PermissionMode) -> String {
    let asked = Invocation { prompt: "x", permission_mode: Some(mode), ..Invocation::default() };
    let command = command_line(preset, &asked).unwrap();
    let args: Vec<_> = command.args.iter().map(|arg| arg.to_string_lossy()).collect();
    args.join(" ")
}

#[test]
fn permission_modes() {
    use PermissionMode::{AcceptEdits, Auto, Bypass, Default, DontAsk, Plan};
    let mut table = String::new();
    for preset in Preset::ALL {
        for mode in [Default, AcceptEdits, Auto, DontAsk, Plan, Bypass] {
            table.push_str(&format!("{preset} {mode:?}: {}\n", args_for(preset, mode)));
        }
    }
    settings().bind(|| insta::assert_snapshot!("permission-modes", table));
}

#[test]
fn a_prompt_of_any_length_and_beginning_goes_to_standard_input_untouched() {
    let long = "x".repeat(1 << 20);
    for prompt in ["-p", "--help", "-", "--", "'quoted'", "a\nb", "日本", long.as_str()] {
        for preset in Preset::ALL {
            let asked = Invocation { prompt, ..Invocation::default() };
            let command = command_line(preset, &asked).unwrap();
            assert_eq!(command.stdin.as_deref(), Some(prompt.as_bytes()), "{preset}");
            assert!(command.args.iter().all(|arg| arg.len() < 100));
        }
    }
}

#[test]
fn nul_bytes_in_a_prompt_are_replaced_and_told() {
    let asked = Invocation { prompt: "a\0b", ..Invocation::default() };
    for preset in Preset::ALL {
        let command = command_line(preset, &asked).unwrap();
        assert_eq!(command.stdin.unwrap(), "a\u{fffd}b".as_bytes());
        assert_eq!(command.warnings.len(), 1);
    }
}

#[test]
fn long_values_go_to_files_where_there_is_a_folder_for_them() {
    let long = format!(r#"{{"a":{{"prompt":"{}"}}}}"#, "x".repeat(200_000));
    let mut asked = Invocation {
        prompt: "x",
        agent_json: Some(&long),
        system_prompt: Some(&long),
        scratch_dir: Some(Path::new("/scratch")),
        ..Invocation::default()
    };
    let command = command_line(Preset::Claude, &asked).unwrap();
    assert_eq!(command.files.len(), 2);
    assert!(command.args.iter().any(|arg| arg == "--agents=/scratch/agents.json"));
    assert!(
        command
            .args
            .iter()
            .any(|arg| arg == "--append-system-prompt-file=/scratch/system-prompt.md")
    );
    // Codex has a place for short instructions only; longer ones stand before the prompt.
    asked.agent_json = None;
    let command = command_line(Preset::Codex, &asked).unwrap();
    assert!(command.stdin.unwrap().len() > 200_000);
    asked.scratch_dir = None;
    let error = command_line(Preset::Claude, &asked).unwrap_err();
    assert!(error.to_string().contains("scratch folder"), "{error}");
}

#[test]
fn a_schema_for_codex_needs_a_folder() {
    let schema = json!({});
    let asked = Invocation { prompt: "x", output_schema: Some(&schema), ..Invocation::default() };
    let error = command_line(Preset::Codex, &asked).unwrap_err();
    assert!(error.to_string().contains("scratch folder"), "{error}");
}
