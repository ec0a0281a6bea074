//! Command lines and output parsers of known coding agent CLIs.
