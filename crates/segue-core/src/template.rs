//! Rendering of task inputs and conditions from immutable outputs.
