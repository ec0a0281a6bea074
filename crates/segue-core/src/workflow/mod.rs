//! Workflow files: YAML in, checked tasks out.
pub(crate) mod suggest;
