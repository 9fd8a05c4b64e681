//! Texts for people: made from codes and arguments, only here, so that a second language is one more catalogue.
//!
//! Map: `catalogue` holds the texts of each language; [`names`] turns ids into names; [`words`], [`event`] and
//! [`problem`] choose the text and its arguments; [`why`] tells a decision; [`status`] and [`layout`] draw.

pub mod amount;
pub mod catalogue;
pub mod event;
pub mod layout;
pub mod names;
pub mod problem;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
pub mod why;
pub mod words;
