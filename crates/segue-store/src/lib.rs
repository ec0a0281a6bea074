//! Keeps one ChangeSet whole or not at all
