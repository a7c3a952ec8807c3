//! The real binary on a terminal, and what a terminal would have done.

use std::io::{BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use crate::program::Bed;

/// The program in a pseudo-terminal, as `script` makes one, and what a person types.
pub(crate) struct Terminal {
    child: Child,
    screen: BufReader<std::process::ChildStdout>,
}

impl Terminal {
    /// Runs `invoke` with the rest of a shell line.
    pub(crate) fn open(bed: &Bed, rest: &str) -> Self {
        Self::with(bed, rest, &[])
    }

    /// The same with more variables.
    pub(crate) fn with(bed: &Bed, rest: &str, variables: &[(&str, &str)]) -> Self {
        let invoke = bed.invoke(&[]);
        let line = format!("exec {} {rest}", invoke.get_program().to_string_lossy());
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        command.env_clear().envs(
            invoke
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command.env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
        command.envs(variables.iter().copied());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = BufReader::new(child.stdout.take().unwrap());
        Self { child, screen }
    }

    pub(crate) fn type_keys(&mut self, keys: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(keys).unwrap();
        stdin.flush().unwrap();
    }

    /// Reads until something stands on the screen.
    pub(crate) fn await_text(&mut self, text: &str) {
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains(text) {
            let mut byte = [0];
            assert_eq!(
                self.screen.read(&mut byte).unwrap(),
                1,
                "{}",
                String::from_utf8_lossy(&shown)
            );
            shown.push(byte[0]);
        }
    }

    /// The exit code, and what came to the screen since it was looked at.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.screen.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

/// A terminal that keeps a record of everything that it was told to do, besides showing text in its
/// order and in its colours. It is the parser of a real one, and knows nothing of what it judges.
#[derive(Default)]
pub(crate) struct Screen {
    /// What can be read.
    pub(crate) text: String,
    /// What was done.
    pub(crate) actions: Vec<String>,
    /// How often colours were changed.
    pub(crate) colours: usize,
    returned: bool,
}

impl Screen {
    /// What becomes of this.
    pub(crate) fn after(shown: &str) -> Self {
        let mut screen = Self::default();
        vte::Parser::new().advance(&mut screen, shown.as_bytes());
        screen
    }

    fn act(&mut self, action: String) {
        // A carriage return that ended no line has gone back over it.
        if std::mem::take(&mut self.returned) {
            self.actions.push("carriage return".to_owned());
        }
        self.actions.push(action);
    }
}

impl vte::Perform for Screen {
    fn print(&mut self, character: char) {
        match character {
            _ if self.returned => self.act(format!("print {character:?}")),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                self.act(format!("turn {character:?}"));
            }
            _ => {}
        }
        self.text.push(character);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.returned = true,
            b'\n' => {
                self.returned = false;
                self.text.push('\n');
            }
            b'\t' => self.print('\t'),
            other => self.act(format!("control {other:#04x}")),
        }
    }

    fn csi_dispatch(&mut self, _: &vte::Params, intermediates: &[u8], _: bool, action: char) {
        match (action, intermediates) {
            ('m', []) => self.colours += 1,
            _ => self.act(format!("CSI {action}")),
        }
    }

    fn esc_dispatch(&mut self, _: &[u8], _: bool, byte: u8) {
        self.act(format!("ESC {}", char::from(byte)));
    }

    fn osc_dispatch(&mut self, parameters: &[&[u8]], _: bool) {
        let command = parameters.first().map(|text| String::from_utf8_lossy(text));
        self.act(format!("OSC {}", command.unwrap_or_default()));
    }

    fn hook(&mut self, _: &vte::Params, _: &[u8], _: bool, action: char) {
        self.act(format!("DCS {action}"));
    }
}
