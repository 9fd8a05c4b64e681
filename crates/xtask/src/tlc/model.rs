//! What a configuration file of `spec/` promises.

use std::fmt::Write as _;

use crate::failure::{Failure, Outcome};

/// A model and the ways in which it must be breakable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// The module's name, and the stem of its files.
    pub(crate) name: String,
    /// What must hold; each is broken by one of the mutants.
    pub(crate) invariants: Vec<String>,
    pub(crate) mutants: Vec<Mutant>,
    pub(crate) reaches: Vec<Reach>,
    /// Every other line, in order: specification, constraint, constants.
    lines: Vec<String>,
}

/// A rule left out on purpose.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// The constant that turns it on.
    pub(crate) constant: String,
    /// The rule of the design that it leaves out, such as `R1`.
    pub(crate) rule: String,
    /// The invariant that must catch it.
    pub(crate) breaks: String,
    pub(crate) why: String,
}

/// An invariant that fails in the sound model: the limit of what is promised, or proof that a state is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) invariant: String,
    pub(crate) why: String,
}

impl Model {
    /// Reads a configuration; `name` is its file's stem.
    pub(crate) fn parse(name: &str, text: &str) -> Outcome<Self> {
        let mut model = Self {
            name: name.to_owned(),
            invariants: Vec::new(),
            mutants: Vec::new(),
            reaches: Vec::new(),
            lines: Vec::new(),
        };
        let mut announced = None;
        let mut in_invariants = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("\\*") {
                announced = model.comment(comment.trim(), line)?.or(announced);
            } else if line == "INVARIANTS" {
                in_invariants = true;
            } else if line.chars().next().is_some_and(char::is_uppercase) && in_invariants {
                in_invariants = is_name(line);
                model.invariant_or_line(line);
            } else {
                model.constant(line, &mut announced)?;
            }
        }
        model.check_names(announced.as_ref())?;
        Ok(model)
    }

    /// The configuration with these invariants, and one mutant switched on.
    pub(crate) fn config(&self, invariants: &[String], mutant: Option<&str>) -> String {
        let mut out = String::new();
        for line in &self.lines {
            let on = mutant.is_some_and(|constant| switch(line) == Some(constant));
            let line = if on {
                line.replace("FALSE", "TRUE")
            } else {
                line.clone()
            };
            let _ = writeln!(out, "{line}");
        }
        let _ = writeln!(out, "INVARIANTS {}", invariants.join(" "));
        out
    }

    fn invariant_or_line(&mut self, line: &str) {
        if is_name(line) {
            self.invariants.push(line.to_owned());
        } else {
            self.lines.push(line.to_owned());
        }
    }

    fn constant(&mut self, line: &str, announced: &mut Option<Mutant>) -> Outcome {
        self.lines.push(line.to_owned());
        let Some(constant) = switch(line) else {
            return Ok(());
        };
        if let Some(mutant) = announced.take() {
            let constant = constant.to_owned();
            self.mutants.push(Mutant { constant, ..mutant });
        }
        Ok(())
    }

    fn comment(&mut self, comment: &str, line: &str) -> Outcome<Option<Mutant>> {
        let bad = || {
            Failure::new(format!("spec/{}.cfg has an unclear comment", self.name))
                .because(line)
                .hint(
                    "write `\\* mutant RULE breaks INVARIANT: what` or `\\* reach INVARIANT: why`",
                )
        };
        if let Some(rest) = comment.strip_prefix("mutant ") {
            let (head, why) = rest.split_once(": ").ok_or_else(bad)?;
            let (rule, breaks) = head.split_once(" breaks ").ok_or_else(bad)?;
            return Ok(Some(Mutant {
                constant: String::new(),
                rule: rule.to_owned(),
                breaks: breaks.to_owned(),
                why: why.to_owned(),
            }));
        }
        if let Some(rest) = comment.strip_prefix("reach ") {
            let (invariant, why) = rest.split_once(": ").ok_or_else(bad)?;
            self.reaches.push(Reach {
                invariant: invariant.to_owned(),
                why: why.to_owned(),
            });
        }
        Ok(None)
    }

    /// An invariant that no mutant breaks may be true by construction; it proves nothing.
    fn check_names(&self, announced: Option<&Mutant>) -> Outcome {
        let file = format!("spec/{}.cfg", self.name);
        if let Some(mutant) = announced {
            let what = format!("{file} announces a mutant without a constant");
            return Err(Failure::new(what).because(&mutant.why));
        }
        for invariant in &self.invariants {
            if !self
                .mutants
                .iter()
                .any(|mutant| &mutant.breaks == invariant)
            {
                return Err(
                    Failure::new(format!("{file}: no mutant breaks {invariant}")).hint(
                        "add a mutant that only this invariant catches, or drop the invariant",
                    ),
                );
            }
        }
        for mutant in &self.mutants {
            if !self.invariants.contains(&mutant.breaks) {
                let what = format!("{file}: {} is not an invariant", mutant.breaks);
                return Err(Failure::new(what));
            }
        }
        Ok(())
    }
}

/// The name in `NAME = FALSE`.
fn switch(line: &str) -> Option<&str> {
    let (name, value) = line.split_once('=')?;
    (value.trim() == "FALSE").then(|| name.trim())
}

/// An invariant's name is mixed case; the keywords of a configuration are not.
fn is_name(line: &str) -> bool {
    line.chars().all(char::is_alphanumeric) && line.chars().any(char::is_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
SPECIFICATION Spec
INVARIANTS
  NoneLost
\\* reach Promoted: somebody takes over
CONSTANTS
  MaxWrites = 2
  \\* mutant R1 breaks NoneLost: forgets
  FORGETS = FALSE
";

    #[test]
    fn a_mutant_is_a_comment_above_its_constant() {
        let model = Model::parse("Late", CONFIG).unwrap();
        assert_eq!(model.invariants, ["NoneLost"]);
        assert_eq!(model.mutants[0].constant, "FORGETS");
        assert_eq!(model.mutants[0].rule, "R1");
        assert_eq!(model.reaches[0].invariant, "Promoted");
    }

    #[test]
    fn a_mutated_configuration_checks_one_invariant() {
        let model = Model::parse("Late", CONFIG).unwrap();
        let config = model.config(&["NoneLost".to_owned()], Some("FORGETS"));
        assert!(config.contains("FORGETS = TRUE"));
        assert!(config.ends_with("INVARIANTS NoneLost\n"));
        assert!(config.contains("SPECIFICATION Spec"));
    }

    #[test]
    fn an_invariant_that_no_mutant_breaks_is_refused() {
        let text = CONFIG.replace("breaks NoneLost", "breaks Other");
        assert!(Model::parse("Late", &text).is_err());
    }

    #[test]
    fn a_mutant_without_a_constant_is_refused() {
        let text = CONFIG.replace("FORGETS = FALSE", "");
        assert!(Model::parse("Late", &text).is_err());
    }
}
