//! Texts for people: made from codes and arguments, only here, so that a second language is one more catalogue.

pub mod names;
