//! Time zones by their names.

use invoke_protocol::timing::TimeZoneName;
use jiff::tz::TimeZone;

/// Names in the database that mean another zone on each machine, or none.
const NO_PLACES: [&str; 4] = ["localtime", "posixrules", "Factory", "Etc/Unknown"];

/// How many letters a name may differ in to be suggested.
const MAX_DISTANCE: usize = 2;

/// There is no zone of a name.
#[derive(Debug, thiserror::Error)]
#[error("there is no time zone {name}; {}", hint(suggestion.as_deref()))]
pub struct Unknown {
    name: TimeZoneName,
    suggestion: Option<String>,
}

fn hint(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(near) => format!("did you mean {near}?"),
        None => "write a name of the IANA database, for example Europe/Berlin or UTC".to_owned(),
    }
}

/// The zone of a name, or which name was meant.
pub(super) fn find(name: &TimeZoneName) -> Result<TimeZone, Unknown> {
    known(name).ok_or_else(|| Unknown {
        name: name.clone(),
        suggestion: nearest(name.as_str()),
    })
}

/// The zone of a name. Its rules are those of the machine's time zone database, or else the program's own.
pub(super) fn known(name: &TimeZoneName) -> Option<TimeZone> {
    let zone = TimeZone::get(name.as_str()).ok();
    zone.filter(|_| is_place(name.as_str()))
}

fn is_place(name: &str) -> bool {
    !NO_PLACES
        .iter()
        .any(|other| other.eq_ignore_ascii_case(name))
}

/// The zone whose name is nearest, or whose city's is.
fn nearest(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let distance = |other: &str| {
        let other = other.to_ascii_lowercase();
        let city = other.rsplit('/').next().unwrap_or_default();
        strsim::osa_distance(&name, &other).min(strsim::osa_distance(&name, city))
    };
    jiff::tz::db()
        .available()
        .map(|other| other.as_str().to_owned())
        .filter(|other| is_place(other))
        .map(|other| (distance(&other), other))
        .filter(|(distance, other)| *distance <= MAX_DISTANCE && *distance < other.len() / 2)
        .min()
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_found_or_suggested() {
        let find = |name: &str| find(&name.parse().unwrap());
        for good in [
            "UTC",
            "Europe/Berlin",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
        ] {
            assert!(find(good).is_ok(), "{good}");
        }
        let wrong = [
            "Europe/Belrin",
            "berlin",
            "New_York",
            "Mars/Olympus",
            "X",
            "localtime",
        ];
        let errors = wrong.map(|name| find(name).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @r"
        there is no time zone Europe/Belrin; did you mean Europe/Berlin?
        there is no time zone berlin; did you mean Europe/Berlin?
        there is no time zone New_York; did you mean America/New_York?
        there is no time zone Mars/Olympus; write a name of the IANA database, for example Europe/Berlin or UTC
        there is no time zone X; write a name of the IANA database, for example Europe/Berlin or UTC
        there is no time zone localtime; write a name of the IANA database, for example Europe/Berlin or UTC
        ");
    }
}
