//! One process tree an attempt: started, watched and ended whole.
