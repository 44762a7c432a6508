//! JSON as Go's `encoding/json` reads it, into ordinary serde types.
//!
//! Runtimes and administrators rely on what the Go plugins accept: keys match exactly or else without regard to ASCII case
//! (containerd sends `HostPort`, CRI-O `hostPort`), unknown keys are ignored, `null` is an absent key, of duplicate keys the last wins.
//! `serde_json` does none of these, so this module puts a small deserializer between a [`Value`] and a derived type; errors carry the
//! JSON path and the value.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// A value that does not fit: where, what, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Path segments, innermost first while the error travels outwards.
    segments: Vec<String>,
    value: Option<String>,
    reason: String,
}

impl JsonError {
    /// The path, such as `ipam.ranges[0][1].subnet`; empty for the whole document.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for segment in self.segments.iter().rev() {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        path
    }

    /// The offending value as JSON, shortened; `None` where something is missing.
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// What is wrong with it.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Puts the error below an outer path segment.
    #[must_use]
    pub fn under(mut self, segment: impl Into<String>) -> Self {
        self.segments.push(segment.into());
        self
    }

    fn at_value(mut self, value: &Value) -> Self {
        if self.value.is_none() {
            self.value = Some(shorten(&value.to_string()));
        }
        self
    }
}

fn shorten(text: &str) -> String {
    const LIMIT: usize = 120;
    if text.chars().count() <= LIMIT {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(LIMIT).collect();
    short.push('…');
    short
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.reason)?;
        match &self.value {
            Some(value) => write!(f, " (value: {value})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for JsonError {}

impl de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { segments: Vec::new(), value: None, reason: message.to_string() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { segments: vec![field.to_owned()], value: None, reason: "is required".to_owned() }
    }
}

/// Decodes a value into a type, as Go would.
///
/// ```
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "camelCase", default)]
/// #[derive(Default)]
/// struct Mapping { host_port: u16, protocol: String }
///
/// let value = serde_json::json!({ "HostPort": 8080, "protocol": null, "unknown": 1 });
/// let mapping: Mapping = cni::json::decode(&value)?;
/// assert_eq!((mapping.host_port, mapping.protocol.as_str()), (8080, ""));
///
/// let error = cni::json::decode::<Mapping>(&serde_json::json!({ "hostPort": "x" })).err().unwrap();
/// assert_eq!(error.path(), "hostPort");
/// # Ok::<(), cni::json::JsonError>(())
/// ```
pub fn decode<T: de::DeserializeOwned>(value: &Value) -> Result<T, JsonError> {
    T::deserialize(Go(value)).map_err(|error| error.at_value_if_leaf(value))
}

/// The value of a key, matched as Go matches it: exactly, else the last key equal but for ASCII case. `null` is absent.
pub fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    // Go lets the last of several matching keys win, whichever way it matches.
    object
        .iter()
        .rev()
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| value)
        .filter(|v| !v.is_null())
}

impl JsonError {
    fn at_value_if_leaf(self, value: &Value) -> Self {
        // A missing field is reported against its own path, not with the whole object as its value.
        if self.segments.is_empty() { self.at_value(value) } else { self }
    }
}

#[derive(Clone, Copy)]
struct Go<'a>(&'a Value);

impl Go<'_> {
    fn unexpected(self, expected: &str) -> JsonError {
        let found = match self.0 {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        <JsonError as de::Error>::custom(format_args!("expected {expected}, found {found}")).at_value(self.0)
    }
}

macro_rules! forward_to_value {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            self.0.$method(visitor).map_err(|error| <JsonError as de::Error>::custom(plain(&error)).at_value(self.0))
        }
    )*};
}

/// `serde_json` appends a position, meaningless for a value already parsed.
fn plain(error: &serde_json::Error) -> String {
    error.to_string()
}

impl<'de> Deserializer<'de> for Go<'de> {
    type Error = JsonError;

    forward_to_value! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string
        deserialize_unit deserialize_bytes deserialize_byte_buf deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            other => other
                .deserialize_any(visitor)
                .map_err(|error| <JsonError as de::Error>::custom(plain(&error))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let Value::Array(items) = self.0 else { return Err(self.unexpected("a list")) };
        visitor.visit_seq(Items { items: items.iter(), index: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let Value::Object(object) = self.0 else { return Err(self.unexpected("an object")) };
        let entries =
            object.iter().map(|(key, value)| (key.as_str(), key.as_str(), value)).collect::<Vec<_>>();
        visitor.visit_map(Entries { entries: entries.into_iter(), value: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let Value::Object(object) = self.0 else { return Err(self.unexpected("an object")) };
        let mut entries: Vec<(&str, &str, &Value)> = Vec::with_capacity(object.len());
        for (key, value) in object {
            let exact = fields.iter().find(|field| *field == key);
            let Some(field) = exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key)))
            else {
                continue;
            };
            // Go: `null` leaves the field as it is; a later key replaces an earlier one.
            if value.is_null() {
                continue;
            }
            entries.retain(|(earlier, _, _)| earlier != field);
            entries.push((field, key, value));
        }
        visitor.visit_map(Entries { entries: entries.into_iter(), value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.0
            .deserialize_enum(name, variants, visitor)
            .map_err(|error| <JsonError as de::Error>::custom(plain(&error)).at_value(self.0))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 unit_struct tuple tuple_struct }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Go(value))
            .map(Some)
            .map_err(|error| error.at_value_if_leaf(value).under(format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'de> {
    /// Name the type knows, key as written, value.
    entries: std::vec::IntoIter<(&'de str, &'de str, &'de Value)>,
    value: Option<(&'de str, &'de Value)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        let Some((field, key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, value));
        seed.deserialize(field.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, JsonError> {
        let Some((key, value)) = self.value.take() else {
            return Err(<JsonError as de::Error>::custom("a value was asked for before its key"));
        };
        seed.deserialize(Go(value)).map_err(|error| error.at_value_if_leaf(value).under(key))
    }
}
