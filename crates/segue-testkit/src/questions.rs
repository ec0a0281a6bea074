//! Asks many questions within one test: for suites whose places share a server, which one test starts.

use futures_util::StreamExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// So many questions are asked at a time where nobody says otherwise: the small machines that tests run on have two cores.
pub const AT_ONCE: usize = 4;

/// A question that has no answer after this long is answered wrongly.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What a question may still have to do when it has been answered: blocking calls that nobody waits for any more.
const LEFTOVERS: Duration = Duration::from_secs(5);

/// Names a part of the names of the questions to ask: all others are left out, by hand, while one of them is looked into.
pub const ONLY: &str = "SEGUE_QUESTIONS";

/// One question of a suite.
pub struct Question {
    name: &'static str,
    ask: Box<dyn FnOnce() + Send>,
}

impl Question {
    /// A question that is asked on a thread of its own, in a runtime of its own with so many workers (none: the thread is the only one), as
    /// a test has it: whatever it leaves behind ends with it.
    pub fn new(
        name: &'static str,
        workers: usize,
        ask: impl AsyncFnOnce() + Send + 'static,
    ) -> Question {
        let ask = move || {
            let runtime = if workers == 0 {
                tokio::runtime::Builder::new_current_thread().enable_all().build()
            } else {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(workers).enable_all().build()
            };
            let runtime = runtime.expect("a runtime starts");
            let answer = catch_unwind(AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let answered = tokio::time::timeout(PATIENCE, ask()).await;
                    assert!(answered.is_ok(), "no answer within {} s", PATIENCE.as_secs());
                });
            }));
            runtime.shutdown_timeout(LEFTOVERS);
            if let Err(panic) = answer {
                std::panic::resume_unwind(panic);
            }
        };
        Question { name, ask: Box::new(ask) }
    }
}

/// Asks these questions, each on a rig of its own that the first word makes.
macro_rules! ask_each {
    ($make:ident: $($question:ident),+ $(,)?) => {{
        let make = std::sync::Arc::new($make);
        let questions = vec![$({
            let make = make.clone();
            $crate::questions::Question::new(stringify!($question), 2, async move || {
                $question(&make().await).await;
            })
        }),+];
        $crate::questions::ask(questions, $crate::questions::AT_ONCE).await;
    }};
}
pub(crate) use ask_each;

/// How one was answered: its time, and what was wrong.
struct Answer {
    name: &'static str,
    took: Duration,
    wrong: Option<String>,
}

/// Asks them all, so many at a time, and prints a line for each. [`ONLY`] in the environment chooses some of them.
///
/// # Panics
/// At the end, naming every question that was answered wrongly, and why; or when [`ONLY`] chooses none.
pub async fn ask(mut questions: Vec<Question>, at_once: usize) {
    if let Ok(only) = std::env::var(ONLY) {
        questions.retain(|question| question.name.contains(&only));
        assert!(!questions.is_empty(), "no question has `{only}` (from {ONLY}) in its name");
    }
    let count = questions.len();
    let answers = futures_util::stream::iter(questions.into_iter().map(answer));
    let mut answers = std::pin::pin!(answers.buffer_unordered(at_once.max(1)));
    let mut wrong = Vec::new();
    while let Some(answer) = answers.next().await {
        let how = if answer.wrong.is_some() { "WRONG" } else { "ok" };
        eprintln!("{how:<5} {:>7.2} s  {}", answer.took.as_secs_f64(), answer.name);
        if let Some(why) = answer.wrong {
            wrong.push(format!("{}: {why}", answer.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} questions were answered wrongly:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

async fn answer(question: Question) -> Answer {
    let Question { name, ask } = question;
    let began = Instant::now();
    let (tell, told) = oneshot::channel();
    let asked = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let answer = catch_unwind(AssertUnwindSafe(ask));
        // Nobody listens any more when the whole suite was given up.
        let _ = tell.send(answer.err().map(|panic| said(&*panic)));
    });
    asked.expect("a thread starts");
    let wrong = told.await.unwrap_or_else(|_| Some("its thread went away".to_owned()));
    Answer { name, took: began.elapsed(), wrong }
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn every_question_is_asked_and_the_wrong_answers_are_named() {
        let asked = Arc::new(AtomicUsize::new(0));
        let question = |name, wrong: Option<&'static str>| {
            let asked = asked.clone();
            Question::new(name, 0, async move || {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                if let Some(why) = wrong {
                    panic!("{why}");
                }
            })
        };
        let questions = vec![
            question("first", Some("one is not two")),
            question("second", None),
            question("third", Some("nor three")),
        ];
        let all = tokio::spawn(ask(questions, 2)).await;
        let why = said(&*all.expect_err("two answers are wrong").into_panic());
        assert!(why.starts_with("2 of 3 questions"), "{why}");
        assert!(why.contains("first: one is not two") && why.contains("third: nor three"), "{why}");
        assert!(!why.contains("second"), "{why}");
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn no_more_are_asked_at_a_time_than_told() {
        let now = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let question = |_| {
            let (now, most) = (now.clone(), most.clone());
            Question::new("crowded", 2, async move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
            })
        };
        ask((0..20).map(question).collect(), 3).await;
        let most = most.load(Ordering::SeqCst);
        assert!((1..=3).contains(&most), "{most} were asked at once");
    }
}
