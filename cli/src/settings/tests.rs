use super::*;

fn flags(url: Option<&str>) -> Layer {
    let url = url.map(|url| Sourced {
        value: url.to_owned(),
        origin: Origin::Flag("--url"),
    });
    Layer {
        url,
        ..Layer::default()
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn certificate() -> String {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    certified.cert.pem()
}

#[test]
fn a_flag_comes_before_a_variable_before_the_file_before_the_machine() {
    let config = folder(&[("config.toml", "url = \"https://file\"\ncluster = \"file\"")]);
    let local = folder(&[("local-token", "local"), ("ca.pem", &certificate())]);
    let file = config.path().join("config.toml");
    let url = |flag: Option<&str>, variables: &[(&str, &str)], file: Option<PathBuf>| {
        let variables: Vec<_> = variables
            .iter()
            .copied()
            .chain([("INVOKE_TOKEN", "t")])
            .collect();
        let places = Places::for_test(file, Some(local.path().to_owned()), &variables);
        Settings::resolve(flags(flag), &places)
            .unwrap()
            .url
            .value
            .to_string()
    };
    let variable = [("INVOKE_URL", "https://variable")];
    assert_eq!(
        url(Some("https://flag"), &variable, Some(file.clone())),
        "https://flag/"
    );
    assert_eq!(
        url(None, &variable, Some(file.clone())),
        "https://variable/"
    );
    assert_eq!(
        url(None, &[("INVOKE_URL", "")], Some(file)),
        "https://file/"
    );
    assert_eq!(url(None, &[], None), "https://localhost:8443/");
}

/// The token of the dispatcher on this machine is not for any other.
#[test]
fn the_local_token_is_never_sent_elsewhere() {
    let local = folder(&[("local-token", "local"), ("ca.pem", &certificate())]);
    let places = Places::for_test(None, Some(local.path().to_owned()), &[]);
    let here = Settings::resolve(flags(None), &places).unwrap();
    assert_eq!(here.token.expose(), "local");
    assert_eq!(here.ca.map(|ca| ca.origin), Some(Origin::Local));
    let elsewhere = Settings::resolve(flags(Some("https://elsewhere")), &places);
    assert!(matches!(elsewhere, Err(Error::NoToken { .. })));
}

/// A token in the environment replaces a token file of the configuration, and the other way round.
#[test]
fn the_higher_layer_says_who_is_calling() {
    let config = folder(&[
        ("config.toml", "token_file = \"token\""),
        ("token", "file\n"),
    ]);
    let file = Some(config.path().join("config.toml"));
    let token = |variables: &[(&str, &str)]| {
        let places = Places::for_test(file.clone(), None, variables);
        Settings::resolve(flags(Some("https://a")), &places)
            .unwrap()
            .token
            .expose()
            .to_owned()
    };
    assert_eq!(token(&[("INVOKE_TOKEN", "variable")]), "variable");
    assert_eq!(token(&[]), "file");
}

#[test]
fn a_token_is_not_in_debug_output() {
    let token = Token::checked("very-secret", "INVOKE_TOKEN".into()).unwrap();
    assert_eq!(format!("{token:?}"), "Token(from INVOKE_TOKEN)");
    assert!(Token::checked("a b", String::new()).is_err());
    assert!(Token::checked("a\r\nb: c", String::new()).is_err());
}

#[test]
fn an_address_is_shown_without_its_password() {
    let url = |text: &str| {
        let origin = Origin::Flag("--url");
        check_url(Sourced {
            value: text.to_owned(),
            origin,
        })
        .map_err(|error| error.to_string())
    };
    assert!(url("https://a.example:8443/invoke").is_ok());
    for text in [
        "https://me:hidden@a",
        "http://me:hidden@a",
        "https://me:hidden@[a",
    ] {
        assert!(!url(text).unwrap_err().contains("hidden"), "{text}");
    }
    assert!(url("https://a/?token=x").is_err());
    assert!(url("http://a").is_err());
}

#[test]
fn a_duration_has_a_unit() {
    assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
    for wrong in ["", "15", "-5m", "1.5", "500ms", "soon"] {
        assert!(parse_duration(wrong).is_err(), "{wrong}");
    }
}
