use proptest::prelude::*;

use super::*;

/// What a whole stream looks like.
fn shown(bytes: &[u8]) -> String {
    let mut sanitiser = Sanitiser::default();
    let mut shown = sanitiser.show(bytes);
    shown.push_str(&sanitiser.end());
    shown
}

/// Says what a terminal would do with bytes besides showing them in their order. Written from the
/// standards (ECMA-48; Unicode's list of format characters), and with nothing of what it judges.
fn first_action(bytes: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Some("bytes that are no text".to_owned());
    };
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character as u32 {
            0x09 | 0x0a | 0x20..=0x7e => {}
            0x1b => match after_colour(rest) {
                Some(after) => rest = after,
                None => return Some(format!("ESC before {:?}", &rest.get(..8))),
            },
            0x00..=0x1f | 0x7f..=0x9f => return Some(format!("control {character:?}")),
            0xad
            | 0x34f
            | 0x600..=0x605
            | 0x61c
            | 0x6dd
            | 0x70f
            | 0x890
            | 0x891
            | 0x8e2
            | 0x115f
            | 0x1160
            | 0x17b4
            | 0x17b5
            | 0x180b..=0x180f
            | 0x200b..=0x200f
            | 0x2028..=0x202e
            | 0x2060..=0x206f
            | 0x3164
            | 0xfe00..=0xfe0d
            | 0xfeff
            | 0xffa0
            | 0xfff0..=0xfffb
            | 0x110bd
            | 0x110cd
            | 0x13430..=0x1343f
            | 0x1bca0..=0x1bca3
            | 0x1d173..=0x1d17a
            | 0xe0000..=0xe0fff => return Some(format!("format {character:?}")),
            _ => {}
        }
    }
    None
}

/// The text behind the rest of a colour, if it is one.
fn after_colour(rest: &str) -> Option<&str> {
    let (numbers, after) = rest.strip_prefix('[')?.split_once('m')?;
    let mut each = numbers.split([';', ':']);
    let is_number = |text: &str| text.len() <= 3 && text.bytes().all(|c| c.is_ascii_digit());
    (numbers.len() <= 61 && each.all(is_number)).then_some(after)
}

/// What was sent to people in bad faith, or by accident, and what they see of it.
const CORPUS: &[(&str, &[u8], &str)] = &[
    (
        "OSC 52 sets the clipboard",
        b"\x1b]52;c;cm0gLXJmIH4=\x07",
        "^[]52;c;cm0gLXJmIH4=^G",
    ),
    (
        "OSC 8 makes a link of other words",
        b"\x1b]8;;https://evil.example\x1b\\docs\x1b]8;;\x1b\\",
        "^[]8;;https://evil.example^[\\docs^[]8;;^[\\",
    ),
    (
        "OSC 0 sets the title",
        b"\x1b]0;root@prod\x07",
        "^[]0;root@prod^G",
    ),
    ("CSI 21 t types the title", b"\x1b[21t", "^[[21t"),
    (
        "DECRQSS types an answer",
        b"\x1bP$q\"p\x1b\\",
        "^[P$q\"p^[\\",
    ),
    (
        "device attributes are answered",
        b"\x1b[c\x1b[>c\x1bZ",
        "^[[c^[[>c^[Z",
    ),
    ("ENQ is answered", b"\x05", "^E"),
    (
        "the cursor moves",
        b"\x1b[1A\x1b[2Jgone\x1b[H",
        "^[[1A^[[2Jgone^[[H",
    ),
    ("the alternate screen", b"\x1b[?1049h", "^[[?1049h"),
    ("a reset", b"\x1bc\x1b[!p", "^[c^[[!p"),
    (
        "keys are programmed",
        b"\x1bP0;0|65/726d\x1b\\",
        "^[P0;0|65/726d^[\\",
    ),
    (
        "APC, PM and SOS",
        b"\x1b_Gx\x1b\\\x1b^x\x1b\\\x1bXx\x1b\\",
        "^[_Gx^[\\^[^x^[\\^[Xx^[\\",
    ),
    ("character sets", b"\x0e\x0f\x1b(0lqk", "^N^O^[(0lqk"),
    (
        "CR overwrites",
        b"rm -rf /\recho hello\n",
        "rm -rf /^M\necho hello\n",
    ),
    ("a progress bar", b"10%\r20%\r\n", "10%^M\n20%\n"),
    ("lines of Windows", b"one\r\ntwo\r\r\n", "one\ntwo\n"),
    ("CR at the end", b"one\r", "one^M\n"),
    ("backspace overwrites", b"no\x08\x08ok", "no^H^Hok"),
    ("other controls", b"\0\x07\x0b\x0c\x7f", "^@^G^K^L^?"),
    (
        "U+202E turns the direction",
        "user\u{202e}gpj.exe".as_bytes(),
        "user<U+202E>gpj.exe",
    ),
    (
        "isolates and marks",
        "\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}".as_bytes(),
        "<U+2066><U+2069><U+200E><U+200F><U+061C>",
    ),
    (
        "what cannot be seen",
        "a\u{200b}b\u{ad}c\u{feff}d\u{2028}e\u{3164}f".as_bytes(),
        "a<U+200B>b<U+00AD>c<U+FEFF>d<U+2028>e<U+3164>f",
    ),
    (
        "tags smuggle text",
        "\u{e0001}\u{e0041}\u{e01ef}".as_bytes(),
        "<U+E0001><U+E0041><U+E01EF>",
    ),
    ("C1 CSI as a character", "\u{9b}2J".as_bytes(), "<U+009B>2J"),
    ("C1 CSI as a byte", b"\x9b2J\x9b31m", "\\x9b2J\\x9b31m"),
    ("C1 OSC as a byte", b"\x9d0;title\x9c", "\\x9d0;title\\x9c"),
    (
        "no UTF-8",
        b"\xff\xc0\x80\xed\xa0\x80",
        "\\xff\\xc0\\x80\\xed\\xa0\\x80",
    ),
    ("an overlong ESC", b"\xc0\x9b[2J", "\\xc0\\x9b[2J"),
    ("a character that never ends", b"\xe2\x82", "\\xe2\\x82"),
    ("ESC inside of one", b"\xe2\x1b[2J", "\\xe2^[[2J"),
    (
        "a number too long for a terminal",
        b"\x1b[2147483648m",
        "^[[2147483648m",
    ),
    ("a sequence that never ends", b"\x1b[31", "^[[31"),
    ("ESC alone", b"\x1b", "^["),
    (
        "a colour that is interrupted",
        b"\x1b[3\x1b[31mred\x1b[m",
        "^[[3\x1b[31mred\x1b[m",
    ),
    (
        "a colour with a control inside",
        b"\x1b[3\x081m",
        "^[[3^H1m",
    ),
    (
        "private and intermediate bytes",
        b"\x1b[?1m\x1b[>4;2m\x1b[1 m",
        "^[[?1m^[[>4;2m^[[1 m",
    ),
    ("colours", b"\x1b[01;31mred\x1b[0m", "\x1b[01;31mred\x1b[0m"),
    (
        "colours of three numbers",
        b"\x1b[38;2;255;0;10;48:5:16mx\x1b[m",
        "\x1b[38;2;255;0;10;48:5:16mx\x1b[m",
    ),
    ("colours that stay on", b"\x1b[31mred", "\x1b[31mred\x1b[0m"),
    (
        "text of the world",
        "ä 日本 हिन्दी e\u{301} ✔\u{fe0f} 🚀\tx\n".as_bytes(),
        "ä 日本 हिन्दी e\u{301} ✔\u{fe0f} 🚀\tx\n",
    ),
];

#[test]
fn a_corpus_of_attacks_and_accidents_is_shown() {
    for (name, bytes, expected) in CORPUS {
        assert_eq!(shown(bytes), *expected, "{name}");
        assert_eq!(first_action(expected.as_bytes()), None, "{name}");
    }
}

/// The judge of the other tests: it would be worth nothing if it let everything pass.
#[test]
fn the_scanner_sees_what_the_corpus_does() {
    let harmless = |name: &str| name.starts_with("colours") || name == "text of the world";
    for (name, bytes, _) in CORPUS {
        assert_eq!(first_action(bytes).is_none(), harmless(name), "{name}");
    }
}

#[test]
fn a_colour_is_let_through_up_to_a_length() {
    let colour = |numbers: usize| format!("\x1b[{}m", "1;".repeat(numbers));
    let longest = format!("{}\x1b[0m", colour(30));
    assert_eq!(shown(longest.as_bytes()), longest);
    assert_eq!(
        shown(colour(31).as_bytes()),
        colour(31).replace('\x1b', "^[")
    );
}

/// What is done is done: a terminal that was reset needs no second reset.
#[test]
fn colours_are_ended_once() {
    for ended in [
        "\x1b[1mx\x1b[m",
        "\x1b[1mx\x1b[0m",
        "\x1b[1mx\x1b[0;00m",
        "x",
    ] {
        assert_eq!(shown(ended.as_bytes()), ended);
    }
    for open in ["\x1b[0;1mx", "\x1b[0m\x1b[7m", "\x1b[38;5;0m"] {
        assert_eq!(shown(open.as_bytes()), format!("{open}\x1b[0m"));
    }
}

/// Every single character, between two others.
#[test]
fn no_character_acts() {
    for character in ('\0'..=char::MAX).filter(|c| !matches!(c, '\n' | '\t')) {
        let text = format!("a{character}b");
        let shown = shown(text.as_bytes());
        assert_eq!(first_action(shown.as_bytes()), None, "{character:?}");
        let acts = first_action(text.as_bytes()).is_some();
        assert_eq!(shown != text, acts, "{character:?}");
    }
}

/// Bytes as attackers and broken programs write them: fragments of sequences, cut and put together.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        4 => prop::sample::select(CORPUS.iter().map(|(_, bytes, _)| bytes.to_vec()).collect::<Vec<_>>()),
        4 => "[\\x1b\\[0-9;:m\r\n]{1,80}".prop_map(String::into_bytes),
        2 => "\\PC{0,8}".prop_map(String::into_bytes),
        2 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
        3 => prop::collection::vec(any::<u8>(), 0..8),
        1 => prop::collection::vec(0x80..=0xff_u8, 0..8),
    ];
    let cut = (fragment, any::<prop::sample::Index>()).prop_map(|(bytes, keep)| {
        let keep = keep.index(2 * bytes.len() + 1).min(bytes.len());
        bytes[..keep].to_vec()
    });
    prop::collection::vec(cut, 0..12).prop_map(|fragments| fragments.concat())
}

/// Text with colours, as well-behaved programs print it.
fn well_behaved() -> impl Strategy<Value = String> {
    let printable = any::<char>().prop_filter("shows itself only", |c| {
        first_action(c.to_string().as_bytes()).is_none()
    });
    let piece = prop_oneof![
        prop::collection::vec(printable, 0..8).prop_map(String::from_iter),
        "[ -~\n\t]{0,20}",
        prop::collection::vec(0..=255_u8, 0..10).prop_map(|numbers| {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            format!("\x1b[{}m", numbers.join(";"))
        }),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat() + "\x1b[0m")
}

proptest! {
    #[test]
    fn nothing_active_comes_out(bytes in hostile()) {
        prop_assert_eq!(first_action(shown(&bytes).as_bytes()), None);
    }

    #[test]
    fn twice_is_once(bytes in hostile()) {
        let once = shown(&bytes);
        prop_assert_eq!(shown(once.as_bytes()), once);
    }

    /// Also: what is held back is little, and each piece is harmless alone.
    #[test]
    fn it_does_not_matter_where_a_stream_is_cut(
        bytes in hostile(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut sanitiser = Sanitiser::default();
        let mut in_pieces = String::new();
        for ends in cuts.windows(2) {
            let piece = sanitiser.show(&bytes[ends[0]..ends[1]]);
            prop_assert_eq!(first_action(piece.as_bytes()), None);
            in_pieces.push_str(&piece);
            let held = match &sanitiser.held {
                Held::Colour(colour) => colour.len(),
                Held::Return | Held::Nothing => 0,
            };
            prop_assert!(held < LONGEST_COLOUR && sanitiser.unfinished.len() <= 3);
        }
        in_pieces.push_str(&sanitiser.end());
        prop_assert_eq!(in_pieces, shown(&bytes));
    }

    #[test]
    fn text_with_colours_is_unchanged(text in well_behaved()) {
        prop_assert_eq!(shown(text.as_bytes()), text);
    }
}
