//! Which clusters somebody means, by their labels, in the words of Kubernetes' label selectors.
//!
//! ```text
//!   env=prod              the label is there and says so (== is the same)
//!   env!=prod             it says something else, or is not there
//!   tier in (edge,core)   it says one of these
//!   tier notin (edge)     it says none of these, or is not there
//!   gpu                   it is there, whatever it says
//!   !gpu                  it is not there
//! ```
//!
//! What stands between commas must all be true. A [`Selector`] that exists is valid, and not empty: what
//! selects everything must say so.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::labels::{InvalidLabel, LabelKey, LabelValue, Labels};

/// The longest selector, in bytes.
pub const MAX_SELECTOR_BYTES: usize = 4096;

/// What a cluster's labels must be like: all of its requirements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "env=prod,tier!=edge"))]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: LabelKey,
    condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Exists,
    Absent,
    /// Never empty, as the next.
    In(BTreeSet<LabelValue>),
    NotIn(BTreeSet<LabelValue>),
}

/// Why something is no selector, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// It would select everything.
    #[error(
        "the selector is empty, which would be every cluster: say which, such as env=prod; a label that all of them \
         have, such as env, selects all"
    )]
    Empty,
    /// Over [`MAX_SELECTOR_BYTES`].
    #[error(
        "the selector has {0} bytes, and at most {MAX_SELECTOR_BYTES} are read: give the clusters a label of their own"
    )]
    TooLong(usize),
    /// Nothing between two commas, or at one end.
    #[error(
        "there is nothing to the left or to the right of a comma in {0:?}: leave that comma out"
    )]
    EmptyRequirement(String),
    /// A key or a value that no label can have.
    #[error(transparent)]
    Label(#[from] InvalidLabel),
    /// A requirement goes on where it should be over.
    #[error("in {0:?}, {1:?} follows what is complete: put a comma between two requirements")]
    Trailing(String, String),
    /// An order of values.
    #[error(
        "{0:?} compares with < or >, and labels have no order: use KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), \
         KEY or !KEY"
    )]
    Ordered(String),
    /// `!key=value`.
    #[error("{0:?} says ! before a key that is compared: write KEY!=VALUE, or KEY notin (A,B)")]
    NegatedComparison(String),
    /// `in` without its list.
    #[error("{0:?} lacks the list of {1}: write KEY {1} (A,B)")]
    NoList(String, &'static str),
    /// `in ()`.
    #[error("{0:?} has an empty list, which nothing is in: name at least one value")]
    EmptyList(String),
    /// `in (a`.
    #[error("{0:?} lacks the ) that ends its list")]
    Unclosed(String),
}

impl Selector {
    /// Whether a cluster with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.is_met(labels))
    }
}

impl Requirement {
    fn is_met(&self, labels: &Labels) -> bool {
        match (&self.condition, labels.get(&self.key)) {
            (Condition::Exists, value) => value.is_some(),
            (Condition::Absent, value) => value.is_none(),
            (Condition::In(values), value) => value.is_some_and(|value| values.contains(value)),
            (Condition::NotIn(values), value) => value.is_none_or(|value| !values.contains(value)),
        }
    }
}

impl fmt::Display for Selector {
    /// In one written form for all that mean the same requirements: it reads back as what it was.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, requirement) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, condition } = self;
        let list = |values: &BTreeSet<LabelValue>| {
            let values: Vec<_> = values.iter().map(LabelValue::as_str).collect();
            values.join(",")
        };
        match condition {
            Condition::Exists => write!(f, "{key}"),
            Condition::Absent => write!(f, "!{key}"),
            Condition::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Condition::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Condition::In(values) => write!(f, "{key} in ({})", list(values)),
            Condition::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
        }
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.trim().is_empty() {
            return Err(InvalidSelector::Empty);
        }
        within_limit(text.len())?;
        let requirement = |part: &str| match part.trim() {
            "" => Err(InvalidSelector::EmptyRequirement(short(text))),
            part => part.parse(),
        };
        let requirements: Result<_, _> = requirements(text).into_iter().map(requirement).collect();
        let selector = Self(requirements?);
        // It may be longer as it is written: it must be read back.
        within_limit(selector.to_string().len())?;
        Ok(selector)
    }
}

const fn within_limit(bytes: usize) -> Result<(), InvalidSelector> {
    match bytes {
        0..=MAX_SELECTOR_BYTES => Ok(()),
        _ => Err(InvalidSelector::TooLong(bytes)),
    }
}

/// The text cut at the commas that are in no list.
fn requirements(text: &str) -> Vec<&str> {
    let mut is_in_list = false;
    let between = move |character: char| {
        match character {
            '(' => is_in_list = true,
            ')' => is_in_list = false,
            _ => {}
        }
        character == ',' && !is_in_list
    };
    text.split(between).collect()
}

impl FromStr for Requirement {
    type Err = InvalidSelector;

    /// Of text that is neither empty nor surrounded by white space.
    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let ends_key = |character: char| character.is_whitespace() || "=!<>()".contains(character);
        if let Some(negated) = text.strip_prefix('!') {
            let key = negated.trim_start();
            return match key.find(ends_key) {
                None => Ok(Self {
                    key: key.parse()?,
                    condition: Condition::Absent,
                }),
                Some(_) => Err(InvalidSelector::NegatedComparison(short(text))),
            };
        }
        let (key, rest) = text.split_at(text.find(ends_key).unwrap_or(text.len()));
        let rest = rest.trim_start();
        if rest.starts_with(['<', '>']) {
            return Err(InvalidSelector::Ordered(short(text)));
        }
        Ok(Self {
            key: key.parse()?,
            condition: condition(text, rest)?,
        })
    }
}

/// What follows the key.
fn condition(text: &str, rest: &str) -> Result<Condition, InvalidSelector> {
    if rest.is_empty() {
        Ok(Condition::Exists)
    } else if let Some(value) = rest.strip_prefix("!=") {
        Ok(Condition::NotIn(BTreeSet::from([one_value(text, value)?])))
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        Ok(Condition::In(BTreeSet::from([one_value(text, value)?])))
    } else if let Some(list) = after_word(rest, "notin") {
        Ok(Condition::NotIn(values(text, list, "notin")?))
    } else if let Some(list) = after_word(rest, "in") {
        Ok(Condition::In(values(text, list, "in")?))
    } else {
        Err(InvalidSelector::Trailing(short(text), short(rest)))
    }
}

fn after_word<'a>(rest: &'a str, word: &str) -> Option<&'a str> {
    let after = rest.strip_prefix(word)?;
    let is_whole =
        after.is_empty() || after.starts_with(|next: char| next.is_whitespace() || next == '(');
    is_whole.then(|| after.trim())
}

fn one_value(text: &str, value: &str) -> Result<LabelValue, InvalidSelector> {
    let value = value.trim();
    match value.split_once(char::is_whitespace) {
        Some((_, more)) => Err(InvalidSelector::Trailing(
            short(text),
            short(more.trim_start()),
        )),
        None => Ok(value.parse()?),
    }
}

fn values(
    text: &str,
    list: &str,
    operator: &'static str,
) -> Result<BTreeSet<LabelValue>, InvalidSelector> {
    let list = list
        .strip_prefix('(')
        .ok_or_else(|| InvalidSelector::NoList(short(text), operator))?;
    let (list, after) = list
        .split_once(')')
        .ok_or_else(|| InvalidSelector::Unclosed(short(text)))?;
    if !after.trim().is_empty() {
        return Err(InvalidSelector::Trailing(short(text), short(after.trim())));
    }
    if list.trim().is_empty() {
        return Err(InvalidSelector::EmptyList(short(text)));
    }
    list.split(',')
        .map(|value| Ok(value.trim().parse()?))
        .collect()
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

impl TryFrom<String> for Selector {
    type Error = InvalidSelector;

    fn try_from(text: String) -> Result<Self, InvalidSelector> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(text: &str) -> Labels {
        let labels = text.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()));
        labels
            .collect::<std::collections::BTreeMap<_, _>>()
            .try_into()
            .unwrap()
    }

    /// The table is that of Kubernetes: what is not there is not equal to anything, so != and notin are true of it.
    #[test]
    fn it_selects_what_kubernetes_would() {
        let clusters = [
            "env=prod,tier=edge",
            "env=prod",
            "env=test,tier=core",
            "env=",
            "",
        ];
        let cases = [
            ("env=prod", [true, true, false, false, false]),
            ("env==prod", [true, true, false, false, false]),
            ("env!=prod", [false, false, true, true, true]),
            ("env in (prod,test)", [true, true, true, false, false]),
            ("env in (prod,)", [true, true, false, true, false]),
            ("env notin (prod,test)", [false, false, false, true, true]),
            ("env", [true, true, true, true, false]),
            ("!env", [false, false, false, false, true]),
            ("env=", [false, false, false, true, false]),
            ("env!=", [true, true, true, false, true]),
            ("env=prod,tier!=edge", [false, true, false, false, false]),
            ("env,!tier", [false, true, false, true, false]),
            (" env = prod , ! tier ", [false, true, false, false, false]),
            ("env=prod,env=test", [false; 5]),
        ];
        for (selector, expected) in cases {
            let selector: Selector = selector.parse().unwrap();
            let selected = clusters.map(|cluster| selector.matches(&labels(cluster)));
            assert_eq!(selected, expected, "{selector}");
        }
    }

    #[test]
    fn there_is_one_written_form() {
        for (written, form) in [
            ("env==prod", "env=prod"),
            ("env in (b, a ,b)", "env in (a,b)"),
            ("env in (a)", "env=a"),
            ("env notin(a)", "env!=a"),
            ("env in (,a)", "env in (,a)"),
            (" a.b/c , !d ", "a.b/c,!d"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("index", "index"),
        ] {
            let selector: Selector = written.parse().unwrap();
            assert_eq!(selector.to_string(), form, "{written}");
        }
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        let long = format!("{}=a b", "x".repeat(70));
        let longest = "a,".repeat(2049);
        let longer_as_written = ["a in(b,c)"; 400].join(",");
        let words = [
            "",
            " ",
            ",",
            "env=prod,",
            "env=prod,,tier",
            "env=prod tier=edge",
            "env prod",
            "env in prod",
            "env in",
            "env in ()",
            "env in (a",
            "env in (a) b",
            "env notin a,b",
            "env>5",
            "env < 5",
            "!env=prod",
            "!env in (a)",
            "!",
            "=prod",
            "env=prod-*",
            "env=a=b",
            "a b/c=d",
            "env===prod",
            "env in (a b)",
            "(env)",
            &long,
            &longest,
            &longer_as_written,
        ]
        .map(|text| match text.parse::<Selector>() {
            Ok(selector) => format!("{text:?} is {selector}"),
            Err(invalid) => invalid.to_string(),
        });
        insta::assert_snapshot!(words.join("\n"), @r#"
        the selector is empty, which would be every cluster: say which, such as env=prod; a label that all of them have, such as env, selects all
        the selector is empty, which would be every cluster: say which, such as env=prod; a label that all of them have, such as env, selects all
        there is nothing to the left or to the right of a comma in ",": leave that comma out
        there is nothing to the left or to the right of a comma in "env=prod,": leave that comma out
        there is nothing to the left or to the right of a comma in "env=prod,,tier": leave that comma out
        in "env=prod tier=edge", "tier=edge" follows what is complete: put a comma between two requirements
        in "env prod", "prod" follows what is complete: put a comma between two requirements
        "env in prod" lacks the list of in: write KEY in (A,B)
        "env in" lacks the list of in: write KEY in (A,B)
        "env in ()" has an empty list, which nothing is in: name at least one value
        "env in (a" lacks the ) that ends its list
        in "env in (a) b", "b" follows what is complete: put a comma between two requirements
        "env notin a" lacks the list of notin: write KEY notin (A,B)
        "env>5" compares with < or >, and labels have no order: use KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY
        "env < 5" compares with < or >, and labels have no order: use KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY or !KEY
        "!env=prod" says ! before a key that is compared: write KEY!=VALUE, or KEY notin (A,B)
        "!env in (a)" says ! before a key that is compared: write KEY!=VALUE, or KEY notin (A,B)
        "" is no label key: use 1 to 63 letters, digits, -, _ and ., and begin and end with a letter or digit, such as env; a domain may come before it, such as example.com/env
        "" is no label key: use 1 to 63 letters, digits, -, _ and ., and begin and end with a letter or digit, such as env; a domain may come before it, such as example.com/env
        "prod-*" is no label value: use at most 63 letters, digits, -, _ and ., and begin and end with a letter or digit; it may be empty
        "a=b" is no label value: use at most 63 letters, digits, -, _ and ., and begin and end with a letter or digit; it may be empty
        in "a b/c=d", "b/c=d" follows what is complete: put a comma between two requirements
        "=prod" is no label value: use at most 63 letters, digits, -, _ and ., and begin and end with a letter or digit; it may be empty
        "a b" is no label value: use at most 63 letters, digits, -, _ and ., and begin and end with a letter or digit; it may be empty
        "" is no label key: use 1 to 63 letters, digits, -, _ and ., and begin and end with a letter or digit, such as env; a domain may come before it, such as example.com/env
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" is no label key: use 1 to 63 letters, digits, -, _ and ., and begin and end with a letter or digit, such as env; a domain may come before it, such as example.com/env
        the selector has 4098 bytes, and at most 4096 are read: give the clusters a label of their own
        the selector has 4399 bytes, and at most 4096 are read: give the clusters a label of their own
        "#);
    }

    fn requirement() -> impl Strategy<Value = String> {
        let key = "([a-z]{1,3}[.][a-z]{1,3}/)?[a-zA-Z0-9]([a-z_.-]{0,3}[a-z])?";
        let value = "([a-zA-Z0-9]([a-z_.-]{0,3}[a-z])?)?";
        let values = prop::collection::vec(value, 1..4).prop_map(|values| values.join(" , "));
        (key, value, values, 0..7).prop_map(|(key, value, values, form)| match form {
            0 => key,
            1 => format!("! {key}"),
            2 => format!("{key}={value}"),
            3 => format!("{key} == {value}"),
            4 => format!("{key}!={value}"),
            5 => format!("{key} in (z,{values})"),
            _ => format!("{key} notin ( z,{values} )"),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same(parts in prop::collection::vec(requirement(), 1..5)) {
            let selector: Selector = parts.join(" , ").parse().unwrap();
            prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
        }

        /// Whatever comes: read, or refused in words, and what is read is written as it was.
        #[test]
        fn no_text_breaks_it(text in "[a-z!=<>(), \\PC]{0,30}") {
            if let Ok(selector) = text.parse::<Selector>() {
                prop_assert_eq!(selector.to_string().parse::<Selector>(), Ok(selector));
            }
        }
    }
}
