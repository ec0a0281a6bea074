//! Finding agents: by capability, else by text over name and description.
