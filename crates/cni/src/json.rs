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

mod parse;

pub use parse::parse;

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

    /// Puts the error below an outer path segment. Below a key that holds a credential the value is withheld: errors are logged.
    #[must_use]
    pub fn under(mut self, segment: impl Into<String>) -> Self {
        let segment = segment.into();
        if self.value.is_some() && is_credential(&segment) {
            self.value = None;
            "has an illegal value (withheld)".clone_into(&mut self.reason);
        }
        self.segments.push(segment);
        self
    }

    fn at_value(mut self, value: &Value) -> Self {
        if self.value.is_none() {
            self.value = Some(brief(value));
        }
        self
    }
}

/// Whether a key names something that must not reach a log.
fn is_credential(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "secret", "token", "credential"]
        .iter()
        .any(|word| key.contains(word))
        || key.ends_with("key")
}

/// A value as an error shows it: scalars shortened, lists and objects without their content (which may hold anything).
pub(crate) fn brief(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => "[]".to_owned(),
        Value::Array(_) => "[…]".to_owned(),
        Value::Object(object) if object.is_empty() => "{}".to_owned(),
        Value::Object(_) => "{…}".to_owned(),
        scalar => shorten(&scalar.to_string()),
    }
}

/// At most 120 characters of a text that somebody else wrote.
pub fn shorten(text: &str) -> String {
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

/// Decodes an object into a type; as [`decode`].
pub fn decode_object<T: de::DeserializeOwned>(object: &Map<String, Value>) -> Result<T, JsonError> {
    T::deserialize(GoObject(object))
}

/// The value of a key, matched as Go matches it: the last of the keys equal but for ASCII case. `null` is absent.
pub fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object
        .iter()
        .rev()
        .find(|(name, value)| name.eq_ignore_ascii_case(key) && !value.is_null())
        .map(|(_, value)| value)
}

/// An error of `serde_json`'s own deserializer; its message is all it has.
fn plain(error: &serde_json::Error) -> JsonError {
    <JsonError as de::Error>::custom(error)
}

impl JsonError {
    fn at_value_if_leaf(self, value: &Value) -> Self {
        // A missing field is reported against its own path, not with the whole object as its value.
        if self.segments.is_empty() { self.at_value(value) } else { self }
    }
}

#[derive(Clone, Copy)]
struct Go<'a>(&'a Value);

impl<'a> Go<'a> {
    fn unexpected(self, expected: impl fmt::Display) -> JsonError {
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

    /// No whole number, or none from the least to the most. Templates of configurations like to put numbers in quotes.
    fn no_number(self, least: impl fmt::Display, most: impl fmt::Display) -> JsonError {
        let quoted = self.0.as_str().is_some_and(|text| text.trim().parse::<i128>().is_ok());
        let expected = format!("a whole number from {least} to {most}");
        if quoted {
            let reason = format_args!("expected {expected}, without quotes");
            return <JsonError as de::Error>::custom(reason).at_value(self.0);
        }
        self.unexpected(expected)
    }

    fn text(self) -> Result<&'a str, JsonError> {
        match self.0 {
            Value::String(text) => Ok(text),
            Value::Null => Ok(""),
            _ => Err(self.unexpected("a string")),
        }
    }

    fn number(self) -> Result<f64, JsonError> {
        match self.0 {
            Value::Number(number) => Ok(number.as_f64().unwrap_or_default()),
            Value::Null => Ok(0.0),
            _ => Err(self.unexpected("a number")),
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $kind:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            let number = match self.0 {
                Value::Null => Some(0),
                // `1.0` and `1e2` are floating point to serde_json, and no integers to Go either.
                Value::Number(number) => number.as_i128().and_then(|number| <$kind>::try_from(number).ok()),
                _ => None,
            };
            let Some(number) = number else {
                return Err(self.no_number(<$kind>::MIN, <$kind>::MAX));
            };
            visitor.$visit(number)
        }
    )*};
}

/// Where the type expects a value, `null` is the zero value: the empty text, 0, false, the empty list. A key with `null` never gets
/// here, [`entries_of`] leaves it out; an element of a list or a map does.
impl<'de> Deserializer<'de> for Go<'de> {
    type Error = JsonError;

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Null => visitor.visit_bool(false),
            _ => Err(self.unexpected("true or false")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_f64(self.number()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_f64(self.number()?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            other => other.deserialize_any(visitor).map_err(|error| plain(&error)),
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
        let items = match self.0 {
            Value::Array(items) => items.as_slice(),
            Value::Null => &[],
            _ => return Err(self.unexpected("a list")),
        };
        visitor.visit_seq(Items { items: items.iter(), index: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Object(object) => GoObject(object).deserialize_map(visitor),
            Value::Null => visitor.visit_map(Entries::default()),
            _ => Err(self.unexpected("an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Object(object) => GoObject(object).deserialize_struct(name, fields, visitor),
            Value::Null => visitor.visit_map(Entries::default()),
            _ => Err(self.unexpected("an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.0.deserialize_enum(name, variants, visitor).map_err(|error| plain(&error).at_value(self.0))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 unit unit_struct tuple tuple_struct bytes byte_buf identifier
    }
}

/// The same for an object that is not wrapped in a [`Value`], so that a whole configuration need not be copied to be decoded.
struct GoObject<'a>(&'a Map<String, Value>);

impl<'de> Deserializer<'de> for GoObject<'de> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let entries: Vec<_> = self.0.iter().map(|(key, value)| (key.as_str(), key.as_str(), value)).collect();
        visitor.visit_map(Entries::new(entries))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_map(Entries::new(entries_of(self.0, fields)))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// The entries of an object that a type knows: name in the type, key as written, value.
fn entries_of<'de>(
    object: &'de Map<String, Value>,
    fields: &'static [&'static str],
) -> Vec<(&'de str, &'de str, &'de Value)> {
    let mut entries: Vec<(&str, &str, &Value)> = Vec::with_capacity(fields.len());
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
    entries
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

#[derive(Default)]
struct Entries<'de> {
    /// Name the type knows, key as written, value.
    entries: std::vec::IntoIter<(&'de str, &'de str, &'de Value)>,
    value: Option<(&'de str, &'de Value)>,
}

impl<'de> Entries<'de> {
    fn new(entries: Vec<(&'de str, &'de str, &'de Value)>) -> Self {
        Self { entries: entries.into_iter(), value: None }
    }
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

#[cfg(test)]
mod tests;
