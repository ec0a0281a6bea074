//! The same questions asked of every backend
