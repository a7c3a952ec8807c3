//! Bytes and counts as people read them.

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size in the largest unit that it fills, with at most one decimal: `1.3 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let power = bytes.checked_ilog2().unwrap_or(0) / 10;
    match bytes {
        1 => return "1 byte".to_owned(),
        _ if power == 0 => return format!("{bytes} bytes"),
        _ => {}
    }
    let unit = 1_u128 << (10 * power);
    let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
    let name = UNITS[power as usize - 1];
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        decimal => format!("{}.{decimal} {name}", tenths / 10),
    }
}

/// The same, and behind it every byte where it was rounded: `1.3 GiB (1,395,864,371 bytes)`.
#[must_use]
pub fn exact_size(bytes: u64) -> String {
    match bytes {
        0..1024 => size(bytes),
        _ => format!("{} ({} bytes)", size(bytes), count(bytes)),
    }
}

/// A number with its thousands apart: `1,395,864,371`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_short() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1_395_864_371, "1.3 GiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) + 1, "1 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn an_exact_size_has_every_byte() {
        assert_eq!(exact_size(1023), "1023 bytes");
        assert_eq!(exact_size((1 << 30) + 1), "1 GiB (1,073,741,825 bytes)");
    }

    #[test]
    fn a_count_is_exact() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_395_864_371, "1,395,864,371"),
        ] {
            assert_eq!(count(number), expected);
        }
    }
}
