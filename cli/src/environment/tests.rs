use super::*;
use crate::failure::Failure;

const HERE: &[(&str, &str)] = &[("HERE", "from here"), ("TOKEN", "very-secret")];

fn gather(variables: &[&str], files: &[&Path], secrets: &[&str]) -> Result<Environment, Failure> {
    let owned = |texts: &[&str]| texts.iter().map(OsString::from).collect::<Vec<_>>();
    let options = Options {
        variables: &owned(variables),
        files: &files
            .iter()
            .map(|path| (*path).to_owned())
            .collect::<Vec<_>>(),
        secrets: &owned(secrets),
    };
    let here = |name: &str| {
        let found = HERE.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(*value))
    };
    Environment::gather(options, here).map_err(Failure::from)
}

fn variables(variables: &[&str]) -> Result<Vec<(String, String)>, String> {
    let gathered = gather(variables, &[], &[]);
    gathered
        .map(|environment| listed(environment.variables.variables()))
        .map_err(|failure| failure.message.unwrap())
}

fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

/// What a file says, or what is wrong with it, without the file's own name.
fn of_file(content: &[u8]) -> Result<Vec<(String, String)>, String> {
    let file = file(content);
    match gather(&[], &[file.path()], &[]) {
        Ok(environment) => Ok(listed(environment.variables.variables())),
        Err(failure) => {
            let name = file.path().to_str().unwrap();
            Err(failure.message.unwrap().replace(name, "FILE"))
        }
    }
}

fn secrets(secrets: &[&str]) -> Result<Environment, Failure> {
    gather(&[], &[], secrets)
}

fn listed(variables: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let variables = variables.iter();
    variables
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn a_variable_has_a_value_or_the_one_that_it_has_here() {
    assert_eq!(
        variables(&["B=b=c", "EMPTY=", "HERE", "_a1= x "]),
        Ok(pairs(&[
            ("B", "b=c"),
            ("EMPTY", ""),
            ("HERE", "from here"),
            ("_a1", " x "),
        ]))
    );
    assert_eq!(
        variables(&["MISSING"]),
        Err("--env: MISSING is not set here".to_owned())
    );
}

#[test]
fn a_name_is_one_that_every_shell_knows() {
    for wrong in ["", "=a", "1A=a", "A-B=a", "ä=a", "A B=a", "A\n=a"] {
        let error = variables(&[wrong]).expect_err(wrong);
        assert!(error.contains("is no name of a variable"), "{error}");
    }
}

/// They tell the command about its job.
#[test]
fn names_of_ours_cannot_be_set() {
    let expected = "INVOKE_JOB cannot be set";
    assert!(variables(&["INVOKE_JOB=a"]).unwrap_err().contains(expected));
    assert!(of_file(b"INVOKE_JOB=a").unwrap_err().contains(expected));
    let secret = secrets(&["INVOKE_JOB"]).err().unwrap().message.unwrap();
    assert!(secret.contains(expected), "{secret}");
    assert!(variables(&["INVOKE=a"]).is_ok());
}

#[test]
fn the_later_value_counts_and_an_option_is_later_than_a_file() {
    let one = file("A=one\nB=one\nC=one");
    let two = file("B=two\nB=three");
    let environment = gather(&["C=four", "C=five"], &[one.path(), two.path()], &[]);
    assert_eq!(
        listed(environment.unwrap().variables.variables()),
        pairs(&[("A", "one"), ("B", "three"), ("C", "five")])
    );
}

#[test]
fn a_file_has_a_variable_a_line() {
    let content =
        b"\xef\xbb\xbf# a comment\n\n  # another\nA=1\r\n  export B=two words \nexport\tC=c\n\
        HERE\nURL=postgres://u:p#w@h/?a=b # c\nEXPORTED=$A\\n\nexport=x";
    assert_eq!(
        of_file(content),
        Ok(pairs(&[
            ("A", "1"),
            ("B", "two words"),
            ("C", "c"),
            ("EXPORTED", "$A\\n"),
            ("HERE", "from here"),
            ("URL", "postgres://u:p#w@h/?a=b # c"),
            ("export", "x"),
        ]))
    );
}

#[test]
fn quotes_around_a_whole_value_are_not_part_of_it() {
    let content = br#"
A=" a "
B='it "is" $B'
C={"a": "b"}
D=""
E="{"a": "b"}"
"#;
    assert_eq!(
        of_file(content),
        Ok(pairs(&[
            ("A", " a "),
            ("B", r#"it "is" $B"#),
            ("C", r#"{"a": "b"}"#),
            ("D", ""),
            ("E", r#"{"a": "b"}"#),
        ]))
    );
}

#[test]
fn a_wrong_line_is_named() {
    for (content, expected) in [
        (
            &b"A=a\n\nMISSING"[..],
            "FILE, line 3: MISSING is not set here",
        ),
        (
            b"A = a",
            "FILE, line 1: \"A \" is no name of a variable: it is made of letters, digits and _",
        ),
        (
            b"A=a\nB=\"b",
            "FILE, line 2: it opens a quote that it does not close",
        ),
        (
            b"A='",
            "FILE, line 1: it opens a quote that it does not close",
        ),
        (b"A=a\nB=\xff", "FILE, line 2: it is not valid UTF-8"),
        (
            b"A=a\0b",
            "FILE, line 1: the value of A contains a NUL byte, which no program can be given",
        ),
    ] {
        assert_eq!(of_file(content), Err(expected.to_owned()));
    }
    let missing = gather(&[], &[Path::new("/nowhere/env")], &[]);
    assert_eq!(
        missing.err().unwrap().message.unwrap(),
        "--env-file names /nowhere/env, which cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_secret_comes_from_here_or_from_a_file() {
    for (content, expected) in [
        ("from-a-file", "from-a-file"),
        ("from-a-file\n", "from-a-file"),
        ("from-a-file\r\n", "from-a-file"),
        ("two\nlines\n\n", "two\nlines\n"),
    ] {
        let file = file(content);
        let option = format!("FILE=@{}", file.path().display());
        let environment = secrets(&["TOKEN", &option]).ok().unwrap();
        assert_eq!(
            listed(environment.secrets.expose()),
            pairs(&[("FILE", expected), ("TOKEN", "very-secret")])
        );
        assert_eq!(environment.notices, Vec::<String>::new());
        assert!(environment.variables.is_empty());
    }
    assert!(secrets(&["MISSING"]).is_err());
    assert!(secrets(&["A=@/nowhere/secret"]).is_err());
}

/// `ps` shows command lines to every user of a machine, and shells keep them.
#[test]
fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
    for option in ["TOKEN=hunter22", "TOKEN="] {
        let failure = secrets(&[option]).err().unwrap();
        assert_eq!(
            failure.message.as_deref(),
            Some("--secret TOKEN=… has its value on the command line, which other users can read")
        );
        let hint = failure.hint.unwrap();
        assert!(hint.contains("--secret TOKEN=@FILE"), "{hint}");
        assert!(!hint.contains("hunter22"), "{hint}");
    }
}

#[test]
fn no_value_is_shown_in_an_error() {
    let file = file(b"hunter22\0\xff");
    let of_file = format!("A=@{}", file.path().display());
    let failure = secrets(&[&of_file]).err().unwrap();
    assert!(!format!("{failure:?}").contains("hunter22"), "{failure:?}");
    let failure = gather(&["A=hunter22\0"], &[], &[]).err().unwrap();
    assert!(!format!("{failure:?}").contains("hunter22"), "{failure:?}");
}

#[test]
fn a_name_is_either_secret_or_not() {
    let env_file = file("TOKEN=a");
    let path = env_file.path().display().to_string();
    for (environment, origin) in [
        (gather(&["TOKEN=a"], &[], &["TOKEN"]), "--env"),
        (gather(&[], &[env_file.path()], &["TOKEN"]), &path),
    ] {
        let message = environment.err().unwrap().message.unwrap();
        let expected = format!("TOKEN is both a secret and not: --secret and {origin}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_secret_that_cannot_be_masked_is_told() {
    for (content, expected) in [
        ("", Some("the secret A is empty")),
        (
            "12345",
            Some("the secret A is shorter than 6 bytes and is not masked in the output"),
        ),
        ("123456", None),
    ] {
        let file = file(content);
        let option = format!("A=@{}", file.path().display());
        let notices = secrets(&[&option]).ok().unwrap().notices;
        assert_eq!(notices.first().map(String::as_str), expected);
    }
}

/// The pod could not start the command with it.
#[test]
fn a_value_that_no_program_can_be_given_is_refused() {
    let most = MAX_BYTES - "A=".len();
    let value = |length| format!("A={}", "x".repeat(length));
    assert!(variables(&[&value(most)]).is_ok());
    assert!(variables(&[&value(most + 1)]).is_err());
    let secret = |content: String| {
        let file = file(content);
        let option = format!("A=@{}", file.path().display());
        secrets(&[&option]).is_ok()
    };
    assert!(secret(format!("{}\r\n", "x".repeat(most))));
    assert!(!secret("x".repeat(most + 1)));
}

/// Each of them is short enough.
#[test]
fn too_much_in_all_is_refused() {
    let value = |name: &str| format!("{name}={}", "x".repeat(MAX_BYTES / 2));
    assert_eq!(
        variables(&[&value("A"), &value("B")]).unwrap_err(),
        "the variables come to 131076 bytes; at most 131072 (128 KiB) fit: put what is large into a file"
    );
}
