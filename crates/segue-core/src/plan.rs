//! Planning backward from what a goal needs over what capabilities consume and produce.
