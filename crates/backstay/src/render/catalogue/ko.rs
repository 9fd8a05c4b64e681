//! Korean. The texts come with the console's translation; until then English is shown.

pub(super) const TEXTS: &[(&str, &str)] = &[];
