//! Workflow files: YAML in, checked tasks out.
