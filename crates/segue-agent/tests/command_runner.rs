//! Programs that misbehave in every way that a shell script can, run as attempts by a real host through real
//! supervisors: each gets the error that says what is wrong and what to do, and leaves nothing behind.

#![cfg(target_os = "linux")]

use parking_lot::Mutex;
use segue_agent::command::{CommandAgent, CommandRunner, ResultFrom};
use segue_agent::host::{Host, HostParts, Hosted};
use segue_agent::place::Folders;
use segue_agent::process::Launcher;
use segue_bus::in_process::InProcessBus;
use segue_core::agent::{AgentKind, AgentSpec, Capability};
use segue_core::ids::{AttemptId, HostId, Incarnation, InstanceId, TaskId};
use segue_core::letter::{
    Address, Letter, LetterBody, Secret, TaskRequest, TaskResponse, WIRE_VERSION,
};
use segue_core::outcome::Outcome;
use segue_core::payload::{DATABASE_MAX, Hash, Payload};
use segue_core::ports::{Blobs, Clock, Fut, StoreError, WorkBus};
use segue_core::task::{ErrorClass, TaskError, WorkspaceKind};
use segue_core::time::Time;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

const HELPER: &str = env!("CARGO_BIN_EXE_segue-test-process");

struct Now;

impl Clock for Now {
    fn now(&self) -> Time {
        Time(0)
    }
}

#[derive(Default)]
struct MapBlobs(Mutex<HashMap<Hash, Vec<u8>>>);

impl Blobs for MapBlobs {
    fn put(&self, bytes: Vec<u8>) -> Fut<'_, Result<Payload, StoreError>> {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        self.0.lock().insert(hash, bytes);
        Box::pin(std::future::ready(Ok(Payload::Stored { hash, size })))
    }

    fn get(&self, hash: Hash) -> Fut<'_, Result<Vec<u8>, StoreError>> {
        let found = self.0.lock().get(&hash).cloned();
        let found = found.ok_or_else(|| StoreError::MissingPayload(hash.hex()));
        Box::pin(std::future::ready(found))
    }
}

/// An agent that is a shell script, and where it works.
struct Program {
    top: TempDir,
    agent: CommandAgent,
    schema: Option<Value>,
    input: Value,
    run_ms: Option<u64>,
}

fn sh(script: &str) -> Program {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("project")).unwrap();
    let agent = CommandAgent {
        name: "program".into(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        team: top.path().to_path_buf(),
        result: ResultFrom::Json,
        env_allow: Vec::new(),
        env_set: vec![("TOP".to_owned(), top.path().to_str().unwrap().to_owned())],
        workspace: WorkspaceKind::Own,
        run_ms: None,
        grace_ms: 5_000,
        output_bytes_max: 16 << 20,
        log_bytes_max: 64 << 10,
    };
    Program { top, agent, schema: None, input: json!({}), run_ms: None }
}

impl Program {
    fn result(mut self, result: ResultFrom) -> Program {
        self.agent.result = result;
        self
    }

    fn input(mut self, input: Value) -> Program {
        self.input = input;
        self
    }

    fn output_max(mut self, bytes: usize) -> Program {
        self.agent.output_bytes_max = bytes;
        self
    }

    fn limit_ms(mut self, ms: u64) -> Program {
        self.run_ms = Some(ms);
        self
    }

    fn schema(mut self, schema: Value) -> Program {
        self.schema = Some(schema);
        self
    }

    fn state(&self) -> PathBuf {
        self.top.path().join("project/.segue")
    }

    /// Runs one attempt, and makes sure that nothing but its log is left of it.
    fn run(&self) -> Done {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let done = runtime.block_on(self.attempt());
        runtime.shutdown_timeout(Duration::from_secs(5));
        assert_eq!(names(&self.state().join("scratch")), [""; 0], "its scratch folder is left");
        assert_eq!(
            names(&self.state().join("run")),
            [""; 0],
            "the record of its processes is left"
        );
        done
    }

    async fn attempt(&self) -> Done {
        let (bus, blobs) = (InProcessBus::new(), Arc::new(MapBlobs::default()));
        let parts = HostParts {
            host: HostId(Uuid::new_v4()),
            incarnation: Incarnation(Uuid::new_v4()),
            bus: bus.clone(),
            blobs: blobs.clone(),
            clock: Arc::new(Now),
        };
        let (host_id, incarnation) = (parts.host, parts.incarnation);
        let instance = InstanceId(Uuid::new_v4());
        let host = Host::start(parts, vec![self.hosted(instance)]).await.unwrap();
        let mut engine = bus.consume(Address::Engine).await.unwrap();
        let text = self.input.to_string();
        let input = match text.len() > DATABASE_MAX {
            true => blobs.put(text.into_bytes()).await.unwrap(),
            false => Payload::of_text(text).unwrap(),
        };
        let id = TaskId(Uuid::now_v7());
        let request = TaskRequest {
            attempt: AttemptId(Uuid::now_v7()),
            number: 1,
            secret: Secret([7; 32]),
            instance,
            incarnation,
            run: id,
            name: "task".into(),
            capability: None,
            input,
            run_ms: self.run_ms,
            workspace: None,
            resume: None,
            state: None,
            team: Vec::new(),
        };
        let body = LetterBody::TaskRequest(Box::new(request));
        bus.publish(vec![letter(Address::Host(host_id), id, body)]).await.unwrap();
        let response = loop {
            let delivery = engine.next(1).await.unwrap().pop().unwrap();
            engine.ack(vec![delivery.token]).await.unwrap();
            if let LetterBody::TaskResponse(response) = delivery.letter.body {
                break response;
            }
        };
        host.idle().await;
        host.stop().await;
        Done::of(&response, &blobs)
    }

    fn hosted(&self, instance: InstanceId) -> Hosted {
        let folders = Folders {
            project: self.top.path().join("project"),
            project_id: "p".into(),
            state: self.state(),
            segue: HELPER.into(),
        };
        let mut launcher = Launcher::new(HELPER).without_cgroup();
        // Under coverage the supervisor needs to know where to leave its counts.
        if let Some(file) = std::env::var_os("LLVM_PROFILE_FILE") {
            launcher = launcher.supervisor_env("LLVM_PROFILE_FILE", file);
        }
        let capability = Capability {
            name: "work".into(),
            description: String::new(),
            input_schema: None,
            output_schema: self.schema.clone().map(Arc::new),
            required_tools: Vec::new(),
            cost_usd: 0.0,
            duration_s: 0.0,
        };
        let spec = AgentSpec {
            instance,
            name: "program".into(),
            kind: AgentKind::Command,
            description: "".into(),
            capabilities: Arc::from([capability]),
            max_concurrency: 1,
            delegates: false,
        };
        Hosted { spec, runner: Arc::new(CommandRunner::new(self.agent.clone(), folders, launcher)) }
    }
}

fn letter(to: Address, task: TaskId, body: LetterBody) -> Letter {
    Letter {
        seq: 1,
        version: WIRE_VERSION,
        from: "test".into(),
        to,
        task: Some(task),
        reply_to: None,
        correlation: None,
        causation: None,
        traceparent: None,
        hops: 0,
        at: Time(0),
        body,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// How an attempt ended.
#[derive(Debug)]
struct Done {
    output: Result<Value, TaskError>,
    ended: Vec<String>,
}

impl Done {
    fn of(response: &TaskResponse, blobs: &MapBlobs) -> Done {
        let output = match &response.outcome {
            Outcome::Complete { output } => Ok(match output {
                Payload::Stored { hash, .. } => {
                    serde_json::from_slice(&blobs.0.lock()[hash]).unwrap()
                }
                here @ Payload::Here(_) => serde_json::from_str(here.text().unwrap()).unwrap(),
            }),
            Outcome::Fail { error, .. } => Err(error.clone()),
            other => panic!("{other:?}"),
        };
        let ended = response.ended.iter().map(|process| process.name.clone()).collect();
        Done { output, ended }
    }

    #[track_caller]
    fn completes(self, output: Value) {
        assert_eq!(self.output.expect("it completes"), output);
    }

    /// It failed in this class, and the message has all of these parts.
    #[track_caller]
    fn fails(&self, class: ErrorClass, parts: &[&str]) {
        let error = self.output.as_ref().expect_err("it fails");
        assert_eq!(error.class, class, "{}", error.message);
        for part in parts {
            assert!(error.message.contains(part), "{part:?} is not in {:?}", error.message);
        }
        assert!(error.message.len() < 1_500, "{}", error.message);
        assert!(!error.message.contains('\0'), "{:?}", error.message);
    }
}

use ErrorClass::{InvalidOutput, Permanent, Timeout, Transient};
use ResultFrom::{Files, Outcome as Contract, Text};

#[test]
fn output_that_is_no_text() {
    sh(r"printf '\377\376{}'").run().fails(InvalidOutput, &["its standard output is no JSON"]);
    sh(r"printf 'a\377b'")
        .result(Text)
        .run()
        .fails(InvalidOutput, &["its standard output is not UTF-8", "index 1"]);
    sh(r#"printf 'a\377b' > "$SEGUE_OUT/x""#)
        .result(Files)
        .run()
        .fails(InvalidOutput, &["the file `x` in SEGUE_OUT is not UTF-8"]);
    sh(r#"printf '{"a":"\000"}'"#).run().fails(InvalidOutput, &["no JSON", "control character"]);
    // A NUL in a text is a character like any other.
    sh(r"printf 'a\000b'").result(Text).run().completes(json!({"text": "a\0b"}));
    sh(r#"printf 'a\000b' > "$SEGUE_OUT/x""#).result(Files).run().completes(json!({"x": "a\0b"}));
}

#[test]
fn output_that_is_no_json() {
    sh("echo hello").run().fails(InvalidOutput, &["no JSON", r#"begins "hello\n""#, "`result`"]);
    sh("echo '{} {}'").run().fails(InvalidOutput, &["no JSON", "trailing characters"]);
    sh(r#"echo '{"a":1e999}'"#).run().fails(InvalidOutput, &["number out of range"]);
    sh(r#"echo '"\ud800"'"#).run().fails(InvalidOutput, &["no JSON"]);
    let deep = r#"awk 'BEGIN { for (i = 0; i < 5000; i++) printf "["; for (i = 0; i < 5000; i++) printf "]" }'"#;
    sh(deep).run().fails(InvalidOutput, &["no JSON", "recursion limit"]);
}

#[test]
fn output_that_never_ends_or_is_too_large() {
    let said = ["more than 1048576 bytes", "Write large results to files", "`output_max`"];
    sh("head -c 104857600 /dev/zero").output_max(1 << 20).run().fails(Permanent, &said);
    sh("exec yes").result(Text).output_max(1 << 20).run().fails(Permanent, &said);
    sh(r#"head -c 2000 /dev/zero | tr '\000' x > "$SEGUE_OUT/big""#)
        .result(Files)
        .output_max(1_000)
        .run()
        .fails(Permanent, &["the file `big` in SEGUE_OUT", "1000 bytes", "`output_max`"]);
    sh(r#"head -c 2000 /dev/zero > "$SEGUE_OUTCOME""#)
        .output_max(1_000)
        .run()
        .fails(Permanent, &["the file SEGUE_OUTCOME", "1000 bytes"]);
    // What goes to standard error is a log: it is bounded, and harms nobody but the one who writes it.
    let noisy = sh("head -c 5000000 /dev/zero >&2; echo '{\"ok\":true}'");
    noisy.run().completes(json!({"ok": true}));
    sh("exec yes >&2").limit_ms(300).run().fails(Timeout, &["longer than 300 ms"]);
}

#[test]
fn output_that_is_not_what_was_promised() {
    let schema =
        json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    sh(r#"echo '{"n":"one"}'"#)
        .schema(schema.clone())
        .run()
        .fails(InvalidOutput, &["not what capability `work` promises", "at `/n`", "integer"]);
    sh("exit 0")
        .result(Files)
        .schema(schema.clone())
        .run()
        .fails(InvalidOutput, &["\"n\" is a required property"]);
    sh(r#"echo '{"n":1}'"#).schema(schema).run().completes(json!({"n": 1}));
    sh("echo 1")
        .schema(json!({"type": "nonsense"}))
        .run()
        .fails(Permanent, &["output schema of capability `work`", "no JSON Schema"]);
}

#[test]
fn a_folder_of_files_that_is_none() {
    let files = |script: &str| sh(script).result(Files);
    files(r#"ln -s /etc/hostname "$SEGUE_OUT/name""#)
        .run()
        .fails(InvalidOutput, &["`name` in SEGUE_OUT is no plain file"]);
    files(r#"mkdir "$SEGUE_OUT/sub"; echo x > "$SEGUE_OUT/sub/x""#)
        .run()
        .fails(InvalidOutput, &["`sub` in SEGUE_OUT is no plain file", "no folders"]);
    files(r#"mkfifo "$SEGUE_OUT/pipe""#)
        .run()
        .fails(InvalidOutput, &["`pipe` in SEGUE_OUT is no plain file"]);
    // A folder elsewhere in its place is not looked into.
    files(r#"echo secret > "$TOP/secret"; rmdir "$SEGUE_OUT"; ln -s "$TOP" "$SEGUE_OUT""#)
        .run()
        .fails(InvalidOutput, &["SEGUE_OUT is no folder any more"]);
    files(r#"rmdir "$SEGUE_OUT""#).run().fails(InvalidOutput, &["SEGUE_OUT is no folder any more"]);
    // What it puts above its folder is no property.
    files(r#"echo up > "$SEGUE_OUT/../up"; echo in > "$SEGUE_OUT/in""#)
        .run()
        .completes(json!({"in": "in\n"}));
    files(r#"i=0; while [ $i -lt 10000 ]; do : > "$SEGUE_OUT/$i"; i=$((i + 1)); done"#)
        .run()
        .fails(InvalidOutput, &["10000 files", "more than 1000"]);
    files(r#": > "$SEGUE_OUT/$(printf 'a\377')""#)
        .run()
        .fails(InvalidOutput, &["not UTF-8", "a\u{fffd}"]);
    files("exit 0").run().completes(json!({}));
}

#[test]
fn an_outcome_that_is_no_file() {
    for trick in [
        r#"mkfifo "$SEGUE_OUTCOME""#,
        r#"mkdir "$SEGUE_OUTCOME""#,
        r#"echo '{"segue":1,"outcome":"complete"}' > there; ln -s "$PWD/there" "$SEGUE_OUTCOME""#,
        r#"ln -s /nowhere "$SEGUE_OUTCOME""#,
    ] {
        sh(&format!("{trick}; echo 1"))
            .run()
            .fails(InvalidOutput, &["the file SEGUE_OUTCOME is no plain file"]);
    }
    sh(r#": > "$SEGUE_OUTCOME""#)
        .run()
        .fails(InvalidOutput, &["the file SEGUE_OUTCOME is no JSON", "EOF"]);
    sh(r#"echo '{"segue":1}' > "$SEGUE_OUTCOME""#)
        .run()
        .fails(InvalidOutput, &["missing field `outcome`"]);
    sh(r#"echo '{"n":1}' > "$SEGUE_OUTCOME""#).run().fails(InvalidOutput, &["names no version"]);
    sh("echo '{\"n\":1}'")
        .result(Contract)
        .run()
        .fails(InvalidOutput, &["printed no outcome of the contract"]);
}

#[test]
fn what_a_program_says_of_itself_is_believed() {
    let said = |class: &str| {
        format!(
            r#"echo '{{"segue":1,"outcome":"fail","class":"{class}","message":"as said"}}' > "$SEGUE_OUTCOME"; exit 3"#
        )
    };
    sh(&said("permanent")).run().fails(Permanent, &["as said"]);
    sh(&said("rate_limited")).run().fails(ErrorClass::RateLimited, &["as said"]);
    sh(r#"echo '{"segue":1,"outcome":"complete","output":7}'; exit 9"#).run().completes(json!(7));
    // Standard output closed at once: the file speaks.
    sh(r#"exec >&-; echo '{"segue":1,"outcome":"complete","output":[]}' > "$SEGUE_OUTCOME""#)
        .run()
        .completes(json!([]));
}

#[test]
fn no_output_and_exit_codes() {
    let nothing = ["printed nothing", "set `result` to"];
    sh("exit 0").run().fails(InvalidOutput, &nothing);
    sh("exec >&-; exit 0").run().fails(InvalidOutput, &nothing);
    sh("printf ' \\n'").run().fails(InvalidOutput, &nothing);
    sh("exit 0").result(Text).run().completes(json!({"text": ""}));
    sh("exit 0")
        .result(Contract)
        .run()
        .fails(InvalidOutput, &["printed no outcome of the contract"]);

    sh("echo '{}'; exit 1").run().fails(Transient, &["exit code 1", "nothing to standard error"]);
    sh("echo why >&2; exit 75").run().fails(Transient, &["exit code 75", "why"]);
    sh("echo why >&2; exit 65").run().fails(Permanent, &["exit code 65", "why"]);
    sh("no-such-program").run().fails(Permanent, &["exit code 127", "not found"]);
    sh("kill -KILL $$").run().fails(Transient, &["signal 9"]);
    // The end of a long complaint is quoted, and no half of a character.
    sh(r#"awk 'BEGIN { for (i = 0; i < 3000; i++) printf "é"; print " the end" }' >&2; exit 1"#)
        .run()
        .fails(Transient, &["the end"]);
    let mut missing = sh("");
    missing.agent.command = vec!["/no/such/program".into()];
    missing.run().fails(Permanent, &["/no/such/program"]);
    missing.agent.command = vec!["/etc/hostname".into()];
    missing.run().fails(Permanent, &["/etc/hostname"]);
}

#[test]
fn an_input_of_any_size_with_any_names() {
    // Nobody has to read what stands on standard input.
    let big = json!({"big": "x".repeat(4_000_000), "small": {"n": 1}});
    sh(r#"printf '{"bytes":%s,"small":%s}' "$(wc -c < "$SEGUE_IN/big")" "$(cat "$SEGUE_IN/small")""#)
        .input(big.clone())
        .run()
        .completes(json!({"bytes": 4_000_000, "small": {"n": 1}}));
    sh("wc -c")
        .input(big)
        .run()
        .output
        .expect("a number")
        .as_u64()
        .filter(|n| *n > 4_000_000)
        .expect("all of it");

    // A name that is no file's name is in the JSON only: nothing is written anywhere else.
    let odd = json!({"a/b": 1, "../up": 1, "..": 1, ".": 1, "": 1, "n\u{0}": 1, ("x".repeat(300)): 1, " ok\n": 1, "-n": 1, "é": 1});
    let names_of_files = r#"ls -A "$SEGUE_IN" | wc -l; ls -A "$SEGUE_IN/.." >&2"#;
    sh(names_of_files).input(odd.clone()).run().completes(json!(4));
    let task = sh("cat").input(odd.clone()).run().output.expect("the task");
    assert_eq!(task["input"], odd);
    for plain in [json!("text"), json!([1]), json!(null), json!(7)] {
        sh("sed 's/.*\"input\":\\(.*\\),\"resume\".*/\\1/'")
            .input(plain.clone())
            .run()
            .completes(plain);
    }
}

#[test]
fn a_prompt_that_is_no_argument() {
    let mut program = sh("");
    program.agent.command = vec!["printf".into(), "\"%.3s\"".into(), "{prompt}".into()];
    program.input = json!("abcdef");
    program.run().completes(json!("abc"));
    program.input = json!("a\u{0}b");
    program.run().fails(Permanent, &["NUL"]);
    program.input = json!("x".repeat(3_000_000));
    program.run().fails(Permanent, &["too long", "standard input"]);
}

#[test]
fn what_a_program_leaves_running_is_ended_with_it() {
    // The child holds its output open, has left its session, and takes no SIGTERM; the program ends once that is so.
    let mut program = sh(
        r#"mkfifo hold ready; $(command -v setsid) sh -c 'trap "" TERM; echo > ready; cat hold' & read line < ready; echo '{"done":true}'"#,
    );
    program.agent.grace_ms = 100;
    let done = program.run();
    assert!(done.ended.iter().any(|name| name == "sh" || name == "cat"), "{:?}", done.ended);
    done.completes(json!({"done": true}));
}
