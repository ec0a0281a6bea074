//! Carries letters, and says what it promises
