//! Questions and answers over the in-process bus, plainly and behind a connection that breaks. Time is paused: nothing waits for it.

use futures_util::FutureExt;
use segue_bus::in_process::InProcessBus;
use segue_bus::request::{AskError, Question, Requester, Responder};
use segue_core::letter::{Address, Letter, LetterBody, WIRE_VERSION};
use segue_core::payload::Payload;
use segue_core::ports::{BusError, Clock, Fut, WorkBus};
use segue_core::time::Time;
use segue_testkit::bus_suite::{FlakyBus, letter};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Time {
        Time(12)
    }
}

fn expert() -> Address {
    Address::Agent("expert".into())
}

fn payload(value: serde_json::Value) -> Payload {
    Payload::of(&value).unwrap()
}

fn question(n: u64) -> Question {
    Question::new(expert(), payload(json!(n)))
}

fn text(letter: &Letter) -> &str {
    match &letter.body {
        LetterBody::Query { payload } => payload.text().unwrap(),
        other => panic!("{other:?} is no answer"),
    }
}

async fn requester(bus: &Arc<dyn WorkBus>) -> Requester {
    Requester::open(bus.clone(), Arc::new(Noon), "asker").await.unwrap()
}

fn responder(bus: &Arc<dyn WorkBus>) -> Responder {
    Responder { bus: bus.clone(), clock: Arc::new(Noon), from: "expert".into() }
}

/// Answers a number with its double, anything else with a refusal.
fn double(question: &Letter) -> Fut<'static, Result<Payload, String>> {
    let asked: Result<u64, _> = text(question).parse();
    Box::pin(async move {
        let n = asked.map_err(|_| "only numbers are doubled".to_owned())?;
        Ok(payload(json!(2 * n)))
    })
}

fn serve(bus: &Arc<dyn WorkBus>) -> tokio::task::JoinHandle<Result<(), BusError>> {
    let responder = responder(bus);
    tokio::spawn(async move { responder.serve(expert(), double).await })
}

/// The queue of the expert is there, whether or not somebody answers.
async fn with_queue(bus: &Arc<dyn WorkBus>) {
    drop(bus.consume(expert()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn every_question_gets_its_own_answer() {
    let bus: Arc<dyn WorkBus> = InProcessBus::new();
    with_queue(&bus).await;
    let (served, also_served) = (serve(&bus), serve(&bus));
    let asker = requester(&bus).await;
    let asked = (0..100).map(|n| asker.ask(question(n), PATIENCE));
    let answers = futures_util::future::join_all(asked).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(text(&answer), (2 * n).to_string());
        assert_eq!((&*answer.from, answer.reply_to.as_ref()), ("expert", None));
        assert_eq!(answer.causation, answer.correlation);
    }
    assert_eq!(asker.waiting(), 0);
    served.abort();
    also_served.abort();
}

#[tokio::test(start_paused = true)]
async fn a_question_says_who_asks_about_what_and_where_the_answer_goes() {
    let bus: Arc<dyn WorkBus> = InProcessBus::new();
    let mut questions = bus.consume(expert()).await.unwrap();
    let asker = requester(&bus).await;
    let asked = Question { causation: Some(3), hops: 2, ..question(1) };
    let mut asking = Box::pin(asker.ask(asked, PATIENCE));
    assert!((&mut asking).now_or_never().is_none());
    let delivery = questions.next(1).await.unwrap().remove(0);
    let letter = &delivery.letter;
    assert_eq!((&*letter.from, letter.at, letter.version), ("asker", Time(12), WIRE_VERSION));
    assert_eq!((letter.causation, letter.hops), (Some(3), 2));
    assert_eq!(letter.reply_to.as_ref(), Some(asker.reply_to()));
    assert_eq!(asker.waiting(), 1);

    let answer = responder(&bus).answer(letter, payload(json!("yes"))).unwrap();
    bus.publish(vec![answer]).await.unwrap();
    assert_eq!(text(&asking.await.unwrap()), "\"yes\"");
}

#[tokio::test(start_paused = true)]
async fn nobody_answers_in_time_and_a_late_answer_is_ignored() {
    let in_process = InProcessBus::new();
    let bus: Arc<dyn WorkBus> = in_process.clone();
    let mut questions = bus.consume(expert()).await.unwrap();
    let asker = requester(&bus).await;
    let began = tokio::time::Instant::now();
    let error = asker.ask(question(1), PATIENCE).await.unwrap_err();
    assert_eq!(began.elapsed(), PATIENCE);
    assert_eq!(error.to_string(), "agent `expert` did not answer within 5000 ms");
    assert_eq!(asker.waiting(), 0);

    // The answer comes after all, twice, together with one that nobody asked for.
    let asked = questions.next(1).await.unwrap().remove(0);
    let late = responder(&bus).answer(&asked.letter, payload(json!(1))).unwrap();
    let foreign = Letter { correlation: Some(77), ..late.clone() };
    let without = Letter { correlation: None, ..late.clone() };
    bus.publish(vec![late.clone(), foreign, without, late]).await.unwrap();
    // The next question is answered all the same, so the reader is past them.
    let served = serve(&bus);
    assert_eq!(text(&asker.ask(question(4), PATIENCE).await.unwrap()), "8");
    assert_eq!(asker.waiting(), 0);
    assert!(in_process.dead_letters().is_empty());
    served.abort();
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_asking_leaves_nothing_behind() {
    let bus: Arc<dyn WorkBus> = InProcessBus::new();
    with_queue(&bus).await;
    let asker = requester(&bus).await;
    {
        let mut asking = Box::pin(asker.ask(question(1), PATIENCE));
        assert!((&mut asking).now_or_never().is_none());
        assert_eq!(asker.waiting(), 1);
    }
    assert_eq!(asker.waiting(), 0);
    assert!(format!("{asker:?}").contains("waiting: 0"), "{asker:?}");
}

#[tokio::test(start_paused = true)]
async fn asking_nobody_is_an_error_at_once() {
    let bus: Arc<dyn WorkBus> = InProcessBus::new();
    let asker = requester(&bus).await;
    let error = asker.ask(question(1), PATIENCE).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "nobody takes letters for agent `expert`");
    assert_eq!(asker.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_counts_as_no_answer() {
    let bus: Arc<dyn WorkBus> = InProcessBus::with_queue_max(1);
    with_queue(&bus).await;
    bus.publish(vec![letter(&expert(), 1)]).await.unwrap();
    let asker = requester(&bus).await;
    let error = asker.ask(question(1), PATIENCE).await.unwrap_err();
    assert!(matches!(error, AskError::TimedOut { waited_ms: 5_000, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_a_dead_letter_and_stops_nothing() {
    let in_process = InProcessBus::new();
    let bus: Arc<dyn WorkBus> = in_process.clone();
    with_queue(&bus).await;
    let asker = requester(&bus).await;
    let to = asker.reply_to().clone();
    let poison = Letter { version: WIRE_VERSION + 1, ..letter(&to, 1) };
    let reason = "too late".to_owned();
    let attempt = segue_core::ids::AttemptId::from_bytes([0; 16]);
    let notice = segue_core::letter::Notice::Cancel { attempt, reason };
    let no_answer = Letter { body: LetterBody::Event(notice), ..letter(&to, 2) };
    bus.publish(vec![poison, no_answer]).await.unwrap();
    let served = serve(&bus);
    assert_eq!(text(&asker.ask(question(4), PATIENCE).await.unwrap()), "8");
    let dead = in_process.dead_letters();
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0].reason, "wire version 2 is unknown; this end speaks 1");
    assert_eq!(dead[1].reason, "only questions and answers come here");
    served.abort();
}

#[tokio::test(start_paused = true)]
async fn a_responder_refuses_what_it_cannot_answer_and_goes_on() {
    let in_process = InProcessBus::new();
    let bus: Arc<dyn WorkBus> = in_process.clone();
    with_queue(&bus).await;
    let served = serve(&bus);
    let asker = requester(&bus).await;
    let nobody = letter(&expert(), 1);
    let gone = Letter { reply_to: Some(Address::Reply(uuid::Uuid::nil())), ..letter(&expert(), 2) };
    let poison = Letter { version: 9, ..letter(&expert(), 3) };
    let body = LetterBody::Query { payload: payload(json!(5)) };
    let to_somebody_gone = Letter { body, ..gone.clone() };
    bus.publish(vec![nobody, gone, poison, to_somebody_gone]).await.unwrap();
    assert_eq!(text(&asker.ask(question(4), PATIENCE).await.unwrap()), "8");
    let reasons: Vec<_> = in_process.dead_letters().into_iter().map(|dead| dead.reason).collect();
    assert_eq!(
        reasons,
        [
            "the question names nobody to answer to",
            "only numbers are doubled",
            "wire version 9 is unknown; this end speaks 1",
        ]
    );
    served.abort();
}

#[tokio::test(start_paused = true)]
async fn close_ends_questions_and_responders() {
    let in_process = InProcessBus::new();
    let bus: Arc<dyn WorkBus> = in_process.clone();
    let served = serve(&bus);
    tokio::task::yield_now().await;
    let asker = requester(&bus).await;
    with_queue(&bus).await;
    // Served by nobody: the question is about to wait when the bus closes.
    let silent = Address::Agent("silent".into());
    drop(bus.consume(silent.clone()).await.unwrap());
    let mut asking = Box::pin(asker.ask(Question::new(silent, payload(json!(1))), PATIENCE));
    assert!((&mut asking).now_or_never().is_none());
    in_process.close();
    assert_eq!(asking.await.unwrap_err(), AskError::Bus(BusError::Closed));
    assert_eq!(served.await.unwrap(), Ok(()));
    let error = asker.ask(question(1), PATIENCE).await.unwrap_err();
    assert_eq!(error, AskError::Bus(BusError::Closed));
    assert_eq!(asker.waiting(), 0);
    assert!(Requester::open(bus, Arc::new(Noon), "asker").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_queue_for_answers_ends_with_the_requester() {
    let bus: Arc<dyn WorkBus> = InProcessBus::new();
    let asker = requester(&bus).await;
    let to = asker.reply_to().clone();
    bus.publish(vec![letter(&to, 1)]).await.unwrap();
    drop(asker);
    let gone = async {
        while bus.publish(vec![letter(&to, 2)]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the queue ends");
}

#[tokio::test(start_paused = true)]
async fn questions_go_on_after_the_bus_was_away() {
    let flaky = FlakyBus::over(InProcessBus::new());
    let bus: Arc<dyn WorkBus> = flaky.clone();
    with_queue(&bus).await;
    let served = serve(&bus);
    let asker = requester(&bus).await;
    assert_eq!(text(&asker.ask(question(1), PATIENCE).await.unwrap()), "2");
    flaky.break_off();
    let error = asker.ask(question(2), PATIENCE).await.unwrap_err();
    assert!(matches!(error, AskError::Bus(BusError::Away(_))), "{error}");
    flaky.mend();
    // Reader and responder come back by themselves, within their pause.
    let answer = async {
        loop {
            if let Ok(answer) = asker.ask(question(3), PATIENCE).await {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(10 * PATIENCE, answer).await.unwrap();
    assert_eq!(text(&answer), "6");
    // The question arrives, only its confirmation does not: its answer finds nobody who waits.
    flaky.lose_confirmations(1);
    let confirmed = asker.ask(question(4), PATIENCE).await;
    assert!(matches!(confirmed, Err(AskError::Bus(BusError::Away(_)))), "{confirmed:?}");
    assert_eq!(text(&asker.ask(question(5), PATIENCE).await.unwrap()), "10");
    assert_eq!(asker.waiting(), 0);
    served.abort();
}
