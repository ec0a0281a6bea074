//! Bodies of every size.

use super::place::*;
use segue_core::command::{Command, NewTask, Submit};
use segue_core::outcome::Outcome;
use segue_core::payload::{DATABASE_MAX, Hash, INLINE_MAX, Payload};
use segue_core::ports::StoreError;

/// The body of a payload, wherever it is.
pub(super) async fn body(hands: &Hands<'_>, payload: &Payload) -> Vec<u8> {
    match payload.text() {
        Some(text) => text.as_bytes().to_vec(),
        None => {
            let blobs = hands.blobs().expect("only a store with bodies refers to them");
            blobs.get(payload.hash()).await.expect("the body is there")
        }
    }
}

/// Inputs, outputs, continuations and notes of every size come back byte for byte, also after reopening.
pub async fn payloads_of_every_size_come_back(place: &Place) {
    let hands = place.open().await;
    hands.register("a", 100).await;
    let mut texts = vec!["null".to_owned(), "0".to_owned(), "{\"k\": [1,  2.50e3]}".to_owned()];
    texts.extend(
        [INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, DATABASE_MAX - 1, DATABASE_MAX].map(text_of),
    );
    if hands.blobs().is_some() {
        texts.extend([DATABASE_MAX + 1, 1_000_000].map(text_of));
    }
    let mut expected = Vec::new();
    for text in &texts {
        let payload = match hands.blobs() {
            Some(blobs) => blobs.put(text.clone().into_bytes()).await.expect("is kept"),
            None => json(text),
        };
        assert_eq!(payload.size(), text.len() as u64);
        assert_eq!(payload.hash(), Hash::of(text.as_bytes()));
        let spec = hands.spec("a");
        let id = spec.id;
        let task = NewTask { spec, input: payload.clone() };
        hands.one(Command::Submit(Submit { tasks: vec![task] })).await;
        let work = hands.give_out(1).await.remove(0);
        assert_eq!(body(&hands, &work.request.input).await, text.as_bytes());
        let note = Command::Progress { proof: work.proof(), note: payload.clone() };
        hands.apply(vec![note, work.end(Outcome::Complete { output: payload })]).await;
        expected.push((id, text));
    }
    let mut hands = hands;
    for round in 0..2 {
        if round == 1 {
            drop(hands);
            hands = place.open().await;
        }
        for (id, text) in &expected {
            let task = hands.task(*id).await;
            let (input, output) = (&task.input, task.output.as_ref().expect("completed"));
            assert_eq!(body(&hands, input).await, text.as_bytes(), "round {round}");
            assert_eq!(body(&hands, output).await, text.as_bytes(), "round {round}");
            assert_eq!(input.hash(), Hash::of(text.as_bytes()));
        }
        let notes = hands.events().await.into_iter().filter_map(|event| match event.fact {
            segue_core::event::Fact::Progress { note, .. } => Some(note),
            _ => None,
        });
        for (note, (_, text)) in notes.collect::<Vec<_>>().iter().zip(&expected) {
            let bytes = body(&hands, note).await;
            let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
            assert_eq!(value(&bytes), value(text.as_bytes()));
        }
    }
}

/// A body that is put twice is one; bytes that are no JSON are kept as well; what nobody put is missing.
pub async fn the_same_body_twice_is_kept_once(place: &Place) {
    let hands = place.open().await;
    let Some(blobs) = hands.blobs() else { return };
    for bytes in
        [text_of(10).into_bytes(), text_of(200_000).into_bytes(), vec![0xff, 0, 1], Vec::new()]
    {
        let one = blobs.put(bytes.clone()).await.expect("is kept");
        let two = blobs.put(bytes.clone()).await.expect("is kept again");
        assert_eq!(one, two);
        assert_eq!((one.hash(), one.size()), (Hash::of(&bytes), bytes.len() as u64));
        assert_eq!(body(&hands, &one).await, bytes);
    }
    let missing = blobs.get(Hash::of(b"nobody put this")).await;
    assert!(matches!(missing, Err(StoreError::MissingPayload(_))), "{missing:?}");
}
