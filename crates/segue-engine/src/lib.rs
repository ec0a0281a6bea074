//! Turns commands into changes, and changes into letters
