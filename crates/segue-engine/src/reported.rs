//! What outcomes say of the agents that brought them, once they are written.

use crate::engine::Engine;
use segue_core::command::{Command, Reply};
use segue_core::ids::AttemptId;
use segue_core::outcome::Outcome;
use segue_core::ports::Decision;
use segue_core::task::ErrorClass;

/// How an attempt ended, as far as that says anything about its agent.
pub(crate) struct Word {
    attempt: AttemptId,
    how: How,
}

enum How {
    Well,
    Failed(ErrorClass),
    Ended,
}

impl Word {
    /// What a command says; nothing where it brings no outcome.
    pub(crate) fn of(command: &Command) -> Option<Word> {
        let Command::Finish { response, .. } = command else { return None };
        let how = match &response.outcome {
            Outcome::Complete { .. } | Outcome::Delegate { .. } => How::Well,
            Outcome::Fail { error, .. } => How::Failed(error.class),
            Outcome::Cancelled => How::Ended,
        };
        Some(Word { attempt: response.attempt, how })
    }
}

impl Engine {
    /// Notes what these outcomes say of their agents. Which instance had an attempt is for the tables to say: another node may have given it
    /// out, and whoever reports could name anybody. The health is soft: it is forgotten with this process.
    pub(crate) fn note_reported(&self, words: &[Option<Word>], decisions: &[Decision]) {
        for (word, decision) in words.iter().zip(decisions) {
            let Some(word) = word else { continue };
            self.outbox.reported(word.attempt);
            let Ok(effects) = decision else { continue };
            let mut attempts = effects.attempts.iter();
            let had = attempts.find(|(attempt, _)| *attempt == word.attempt);
            // What comes too late says nothing: the agent has been judged by that it did not come.
            let (Some((_, instance)), Reply::Accepted) = (had, &effects.reply) else { continue };
            match word.how {
                How::Well => self.directory.succeeded(*instance),
                How::Failed(class) => self.directory.failed(*instance, class),
                How::Ended => {}
            }
        }
    }
}
