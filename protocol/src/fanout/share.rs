//! So many clusters, or so many per cent of them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many clusters: a number, or a percentage of all, and never none. Written `10` or `"10%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(Amount);

/// How many clusters may fail: a number, or a percentage of all, and it may be none. Written `2` or `"5%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureBudget(Amount);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    Count(u32),
    /// At most 100.
    Percent(u8),
}

/// Why something is no number of clusters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShare {
    /// Neither of the two forms.
    #[error(
        "{0:?} is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%"
    )]
    Form(String),
    /// More than all.
    #[error("{0}% is more than all clusters: write at most 100%")]
    OverAll(u32),
    /// None at all.
    #[error("{0} would let no cluster run: write a number from 1, or a percentage from 1% to 100%")]
    None(&'static str),
}

/// A percentage that is less than one of the clusters there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{percent}% of {clusters} clusters is less than one: write a number, such as 1, or at least {least}%"
)]
pub struct RoundsToNone {
    /// What was asked for.
    pub percent: u8,
    /// Of how many.
    pub clusters: u32,
    /// The smallest percentage that is one of them.
    pub least: u8,
}

impl Share {
    /// How many of `clusters` that is: a percentage is rounded down, and it is never more than there are.
    ///
    /// # Errors
    /// [`RoundsToNone`] if it is less than one.
    pub fn of(self, clusters: u32) -> Result<u32, RoundsToNone> {
        self.0.of(clusters)
    }
}

impl FailureBudget {
    /// How many of `clusters` that is: a percentage is rounded down.
    ///
    /// # Errors
    /// [`RoundsToNone`] if it is less than one, and was not written as none.
    pub fn of(self, clusters: u32) -> Result<u32, RoundsToNone> {
        match self.0 {
            Amount::Count(0) | Amount::Percent(0) => Ok(0),
            amount => amount.of(clusters),
        }
    }
}

impl Amount {
    fn of(self, clusters: u32) -> Result<u32, RoundsToNone> {
        match self {
            Self::Count(count) => Ok(count.min(clusters)),
            Self::Percent(percent) => {
                let rounded = u64::from(clusters) * u64::from(percent) / 100;
                // At most `clusters`, as no percentage is over 100.
                match u32::try_from(rounded) {
                    Ok(count) if count > 0 => Ok(count),
                    _ => Err(RoundsToNone {
                        percent,
                        clusters,
                        least: least(clusters),
                    }),
                }
            }
        }
    }
}

/// The smallest percentage that is one of so many clusters.
fn least(clusters: u32) -> u8 {
    let least = 100_u32.div_ceil(clusters.max(1));
    u8::try_from(least).unwrap_or(100)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Amount {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        let form = || InvalidShare::Form(text.chars().take(80).collect());
        let (digits, is_percent) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        // `u32::from_str` takes a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(form());
        }
        let number: u32 = digits.parse().map_err(|_| form())?;
        match (is_percent, u8::try_from(number)) {
            (false, _) => Ok(Self::Count(number)),
            (true, Ok(percent @ 0..=100)) => Ok(Self::Percent(percent)),
            (true, _) => Err(InvalidShare::OverAll(number)),
        }
    }
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        match text.parse()? {
            Amount::Count(0) => Err(InvalidShare::None("0")),
            Amount::Percent(0) => Err(InvalidShare::None("0%")),
            amount => Ok(Self(amount)),
        }
    }
}

impl FromStr for FailureBudget {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        text.parse().map(Self)
    }
}

/// A JSON number for a count, a string for a percentage; a count may come as a string too.
macro_rules! in_json {
    ($name:ident, $least:literal, $description:literal) => {
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
                let count = ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some($least));
                let text = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .pattern(Some("^[0-9]+%?$"));
                OneOfBuilder::new()
                    .item(count)
                    .item(text)
                    .description(Some($description))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.to_string())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    Amount::Count(count) => serializer.serialize_u32(count),
                    Amount::Percent(_) => serializer.collect_str(self),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer
                    .deserialize_any(Text)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}

in_json!(
    Share,
    1_u32,
    "So many clusters, or so many per cent of all, such as \"10%\"; at least one."
);
in_json!(
    FailureBudget,
    0_u32,
    "So many clusters, or so many per cent of all, such as \"5%\"; may be none."
);

/// A number or a string, as the text that both are written as.
struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a number of clusters, such as 10, or a percentage of all of them, such as \"10%\"",
        )
    }

    fn visit_u64<E>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_share_is_a_number_or_a_percentage_rounded_down() {
        for (written, clusters, count) in [
            ("10", 200, Some(10)),
            ("10", 3, Some(3)),
            ("10%", 200, Some(20)),
            ("10%", 19, Some(1)),
            ("10%", 10, Some(1)),
            ("10%", 9, None),
            ("100%", 1, Some(1)),
            ("33%", 200, Some(66)),
            ("100%", u32::MAX, Some(u32::MAX)),
            ("1%", 0, None),
        ] {
            let share: Share = written.parse().unwrap();
            assert_eq!(share.of(clusters).ok(), count, "{written} of {clusters}");
            let budget: FailureBudget = written.parse().unwrap();
            assert_eq!(budget.of(clusters).ok(), count, "{written} of {clusters}");
        }
        for none in ["0", "0%"] {
            assert_eq!(none.parse::<FailureBudget>().unwrap().of(5), Ok(0));
        }
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        let refused = [
            "",
            "%",
            "ten",
            "-1",
            "+1",
            "1.5",
            "10 %",
            "101%",
            "0",
            "0%",
            "4294967296",
        ]
        .map(|text| text.parse::<Share>().unwrap_err().to_string());
        let rounded = [(10, 5), (1, 7), (3, 33)].map(|(percent, clusters)| {
            let share: Share = format!("{percent}%").parse().unwrap();
            share.of(clusters).unwrap_err().to_string()
        });
        insta::assert_snapshot!([&refused[..], &rounded[..]].concat().join("\n"), @r#"
        "" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        "%" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        "ten" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        "-1" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        "+1" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        "1.5" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        "10 %" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        101% is more than all clusters: write at most 100%
        0 would let no cluster run: write a number from 1, or a percentage from 1% to 100%
        0% would let no cluster run: write a number from 1, or a percentage from 1% to 100%
        "4294967296" is no number of clusters: write a number, such as 10, or a percentage of all of them, such as 10%
        10% of 5 clusters is less than one: write a number, such as 1, or at least 20%
        1% of 7 clusters is less than one: write a number, such as 1, or at least 15%
        3% of 33 clusters is less than one: write a number, such as 1, or at least 4%
        "#);
    }

    #[test]
    fn in_json_a_count_is_a_number_and_a_percentage_a_string() {
        let read = |value: Value| serde_json::from_value::<Share>(value);
        for (written, read_as) in [
            (json!(10), json!(10)),
            (json!("10"), json!(10)),
            (json!("10%"), json!("10%")),
        ] {
            assert_eq!(
                serde_json::to_value(read(written).unwrap()).unwrap(),
                read_as
            );
        }
        for wrong in [
            json!(0),
            json!(-1),
            json!(1.5),
            json!(null),
            json!(["1"]),
            json!("0%"),
            json!(u64::MAX),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    proptest! {
        /// The smallest percentage that a refusal names is one, and the next smaller is none.
        #[test]
        fn the_least_percentage_is_the_least(clusters in 1_u32..1000) {
            let of = |percent: u8| Amount::Percent(percent).of(clusters);
            let least = least(clusters);
            prop_assert!(of(least).is_ok_and(|count| count >= 1));
            prop_assert!(least == 1 || of(least - 1).is_err());
        }
    }
}
