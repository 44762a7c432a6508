use super::Args;

fn refused(text: &str) -> String {
    let failure = Args::parse(text).unwrap_err();
    assert_eq!(failure.code().number(), 4, "{text:?}");
    failure.message().to_owned()
}

#[test]
fn pairs_are_read_as_libcni_reads_them() {
    let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web-0;EMPTY=;IP=10.1.2.3;IP=10.1.2.4").unwrap();
    assert_eq!(args.get("K8S_POD_NAME"), Some("web-0"));
    assert_eq!(args.get("EMPTY"), Some(""));
    assert_eq!(args.get("IP"), Some("10.1.2.4"), "the last one counts");
    assert_eq!(args.get("ip"), None, "case matters");
    assert_eq!(Args::parse("").unwrap(), Args::default());
}

#[test]
fn a_pair_has_exactly_one_equals_sign() {
    for text in ["a", ";", "a=b;", ";a=b", "a=b=c", "a=b;;c=d", "a=b;c"] {
        assert!(refused(text).contains("CNI_ARGS"), "{text:?}");
    }
}

#[test]
fn unknown_keys_are_refused_unless_the_runtime_says_otherwise() {
    let allowed = |text: &str| Args::parse(text).unwrap().allow_only(&["IP", "MAC"]);
    assert!(allowed("").is_ok());
    assert!(allowed("IP=10.1.2.3;MAC=02:00:00:00:00:01").is_ok());
    for yes in ["1", "true", "TRUE", "True"] {
        assert!(allowed(&format!("IgnoreUnknown={yes};FOO=1")).is_ok(), "{yes}");
    }
    for no in [
        "IgnoreUnknown=0;FOO=1",
        "IgnoreUnknown=false;FOO=1",
        "FOO=1",
        "ip=10.1.2.3",
        "ignoreunknown=1;IP=::1",
    ] {
        let failure = allowed(no).unwrap_err();
        assert_eq!(failure.code().number(), 4, "{no}");
    }
    for neither in ["IgnoreUnknown=;FOO=1", "IgnoreUnknown=yes", "IgnoreUnknown=2;IP=::1"] {
        assert!(allowed(neither).unwrap_err().message().contains("IgnoreUnknown"), "{neither}");
    }
}

#[test]
fn an_unknown_key_is_named_and_its_value_is_not() {
    let failure = Args::parse("FOO=hunter2").unwrap().allow_only(&[]).unwrap_err();
    assert!(failure.message().contains("FOO"));
    assert!(!failure.document(crate::SpecVersion::NEWEST).to_string().contains("hunter2"));
}
