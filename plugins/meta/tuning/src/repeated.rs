//! Keys that are written twice, which a parsed configuration can't show any more: the later has replaced the earlier.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The objects of a JSON document with all their keys; everything else is empty.
#[derive(Debug, Default)]
struct Keys(Vec<(String, Keys)>);

impl Keys {
    fn at<'a>(&'a self, path: &[&str]) -> Vec<&'a Keys> {
        let Some((first, rest)) = path.split_first() else { return vec![self] };
        let named = self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(first));
        named.flat_map(|(_, value)| value.at(rest)).collect()
    }
}

/// The first key that the object at `path` has twice. An object that is there twice itself counts as one.
pub(crate) fn repeated(document: &[u8], path: &[&str]) -> Option<String> {
    let keys: Keys = serde_json::from_slice(document).ok()?;
    let mut seen: Vec<&str> = Vec::new();
    for (key, _) in keys.at(path).into_iter().flat_map(|object| &object.0) {
        if seen.contains(&key.as_str()) {
            return Some(key.clone());
        }
        seen.push(key);
    }
    None
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Keys, A::Error> {
        let mut keys = Keys::default();
        while let Some(item) = items.next_entry()? {
            keys.0.push(item);
        }
        Ok(keys)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Keys, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Keys::default())
    }

    fn visit_unit<E>(self) -> Result<Keys, E> {
        Ok(Keys::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Keys, E> {
        Ok(Keys::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Keys, E> {
        Ok(Keys::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Keys, E> {
        Ok(Keys::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Keys, E> {
        Ok(Keys::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Keys, E> {
        Ok(Keys::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_written_twice_is_found() {
        let document = br#"{"a": 1, "sysctl": {"x": "1", "y": "2", "x": "1"}}"#;
        assert_eq!(repeated(document, &["sysctl"]).as_deref(), Some("x"));
        let twice = br#"{"sysctl": {"x": "1"}, "Sysctl": {"x": "2"}}"#;
        assert_eq!(repeated(twice, &["sysctl"]).as_deref(), Some("x"));
        let deep = br#"{"args": {"cni": {"sysctl": {"x": "1", "x": "2"}}}}"#;
        assert_eq!(repeated(deep, &["args", "cni", "sysctl"]).as_deref(), Some("x"));
    }

    #[test]
    fn other_objects_do_not_matter() {
        let document = br#"{"other": {"x": 1, "x": [2, null, true, 1.5, -3]}, "sysctl": {"x": "1", "y": "1"}, "n": 1, "n": 2}"#;
        assert_eq!(repeated(document, &["sysctl"]), None);
        assert_eq!(repeated(b"{}", &["sysctl"]), None);
        assert_eq!(repeated(b"not json", &["sysctl"]), None);
    }
}
