//! What letters carry and what runners work with: payloads turned into texts, and texts into payloads.

use super::{Host, Lodger, Work, failed};
use crate::runner::{Control, End, Job};
use segue_core::letter::TaskRequest;
use segue_core::outcome::Outcome;
use segue_core::payload::{BadPayload, DATABASE_MAX, Payload};
use segue_core::ports::StoreError;
use segue_core::state::{KeyPut, OutcomeState, check_size};
use segue_core::task::{ErrorClass, TaskError};
use std::sync::Arc;

impl Host {
    pub(super) async fn job(&self, work: &Work, control: Control) -> Result<Job, StoreError> {
        let Work { task, request, .. } = work;
        let mut resume = request.resume.clone();
        if let Some(resume) = &mut resume {
            for child in &mut resume.children {
                if let Some(output) = &mut child.output {
                    *output = Payload::of_trusted_text(&self.text(output).await?);
                }
            }
            if let Some(continuation) = &mut resume.continuation {
                *continuation = Payload::of_trusted_text(&self.text(continuation).await?);
            }
        }
        let mut state = request.state.clone();
        for given in state.iter_mut().flat_map(|state| &mut state.values) {
            given.value = Payload::of_trusted_text(&self.text(&given.value).await?);
        }
        Ok(Job {
            task: *task,
            run: request.run,
            name: request.name.clone(),
            attempt: request.attempt.to_string(),
            traceparent: work.traceparent,
            number: request.number,
            capability: request.capability.clone(),
            input: self.text(&request.input).await?,
            run_ms: request.run_ms,
            workspace: request.workspace,
            resume,
            state,
            team: request.team.clone(),
            control,
        })
    }

    async fn text(&self, payload: &Payload) -> Result<Arc<str>, StoreError> {
        match payload {
            Payload::Stored { hash, .. } => {
                let bytes = self.parts.blobs.get(*hash).await?;
                let text = String::from_utf8(bytes).map_err(|_| {
                    StoreError::Corrupt(format!("payload {} is not UTF-8", hash.hex()))
                })?;
                Ok(text.into())
            }
            here @ Payload::Here(_) => Ok(here.text().unwrap_or("null").into()),
        }
    }

    /// Checks what the runner brought, and makes payloads of it.
    pub(super) async fn outcome(
        &self,
        lodger: &Lodger,
        request: &TaskRequest,
        end: End,
    ) -> Outcome {
        match end {
            End::Complete(text) => {
                let checked = lodger.schemas.check(request.capability.as_deref(), &text);
                match checked {
                    Ok(()) => match self.payload(text).await {
                        Ok(output) => Outcome::Complete { output },
                        Err(error) => failed(error),
                    },
                    Err(error) => failed(error),
                }
            }
            End::Fail { error, retry_after_ms } => Outcome::Fail { error, retry_after_ms },
            End::Delegate { tasks, resume, continuation } => {
                let mut delegated = Vec::with_capacity(tasks.len());
                for (mut task, input) in tasks {
                    match self.payload(input).await {
                        Ok(input) => task.input = input,
                        Err(error) => return failed(error),
                    }
                    delegated.push(task);
                }
                let continuation = match continuation {
                    None => None,
                    Some(text) => match self.payload(text).await {
                        Ok(payload) => Some(payload),
                        Err(error) => return failed(error),
                    },
                };
                Outcome::Delegate { tasks: delegated, resume, continuation }
            }
            End::Cancelled => Outcome::Cancelled,
        }
    }

    async fn payload(&self, text: String) -> Result<Payload, TaskError> {
        if text.len() > DATABASE_MAX {
            // Whoever reads it back trusts it to be JSON, however large it is.
            serde_json::from_str::<serde::de::IgnoredAny>(&text)
                .map_err(|error| not_a_payload(&BadPayload::NotJson(error.to_string())))?;
            return self.parts.blobs.put(text.into_bytes()).await.map_err(|error| {
                TaskError::new(
                    ErrorClass::Transient,
                    format!("its output could not be kept: {error}"),
                )
            });
        }
        Payload::of_text(text).map_err(|error| not_a_payload(&error))
    }

    /// What the outcome writes into shared state, as payloads. What is wrong with it is found before anything is handed in.
    pub(super) async fn state(
        &self,
        texts: Vec<(KeyPut, String)>,
    ) -> Result<OutcomeState, TaskError> {
        let wrong = |why: String| {
            let message = format!("what its outcome writes into shared state is wrong: {why}");
            TaskError::new(ErrorClass::InvalidOutput, message)
        };
        for (put, text) in &texts {
            check_size(&put.key, text.len() as u64).map_err(wrong)?;
        }
        let (put, texts): (Vec<KeyPut>, Vec<String>) = texts.into_iter().unzip();
        let mut state = OutcomeState { put };
        state.check().map_err(wrong)?;
        for (put, text) in state.put.iter_mut().zip(texts) {
            put.value = self.payload(text).await?;
        }
        Ok(state)
    }
}

fn not_a_payload(error: &BadPayload) -> TaskError {
    TaskError::new(ErrorClass::InvalidOutput, format!("its output is {error}"))
}
