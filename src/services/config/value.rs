//! A value of any type, as a tree and as a flat list of tokens on the wire.
//!
//! On the wire a value is its tokens in preorder, because a list has a length that is checked before anything is allocated, and building
//! the tree checks its depth; nested encodings would let few bytes ask for deep recursion.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use meshwork_channels::{Bounded, DecodeError, encode};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX, VALUE_NODES_MAX};

/// A value. Maps are subtrees: each of their names can be the name of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, said explicitly.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number that is not NaN.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// Values in an order. A list is one value: two that change it at once do not both win.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
}

/// One part of a value on the wire. New kinds are added at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Token {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Bytes),
    /// So many values follow.
    List(u32),
    /// So many pairs of a name and a value follow, in the order of the names.
    Map(u32),
    Name(String),
}

pub(super) type Tokens = Bounded<Token, VALUE_NODES_MAX>;

/// Why a value cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// More than [`VALUE_DEPTH_MAX`] lists and maps within each other.
    TooDeep,
    /// More than [`VALUE_NODES_MAX`] values and names within it.
    TooManyNodes,
    /// A number is not a number.
    NotANumber,
    /// Its encoding is longer than [`VALUE_BYTES_MAX`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueError::TooDeep => write!(f, "a value has at most {VALUE_DEPTH_MAX} levels"),
            ValueError::TooManyNodes => write!(f, "a value has at most {VALUE_NODES_MAX} parts"),
            ValueError::NotANumber => f.write_str("a number is not NaN"),
            ValueError::TooLong { len } => write!(f, "a value has at most {VALUE_BYTES_MAX} bytes; this has {len}"),
        }
    }
}

impl std::error::Error for ValueError {}

impl Value {
    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Integer(_) => "integer",
            Value::Float(_) => "float",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
        }
    }

    /// Whether this is one value rather than a subtree; a map without names is one, so that it is not lost.
    pub(super) fn is_leaf(&self) -> bool {
        !matches!(self, Value::Map(map) if !map.is_empty())
    }

    /// Checks all bounds of one value.
    pub(super) fn check(&self) -> Result<(), ValueError> {
        let len = encode(&self.tokens()?).len();
        if len > VALUE_BYTES_MAX { Err(ValueError::TooLong { len }) } else { Ok(()) }
    }

    pub(super) fn tokens(&self) -> Result<Tokens, ValueError> {
        let mut tokens = Tokens::new();
        self.push_tokens(&mut tokens, 0)?;
        Ok(tokens)
    }

    fn push_tokens(&self, tokens: &mut Tokens, depth: usize) -> Result<(), ValueError> {
        if depth == VALUE_DEPTH_MAX && matches!(self, Value::List(_) | Value::Map(_)) {
            return Err(ValueError::TooDeep);
        }
        let mut push = |token| tokens.push(token).map_err(|_| ValueError::TooManyNodes);
        // A length that does not fit has more parts than are allowed, which the parts themselves then say.
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        match self {
            Value::Null => push(Token::Null),
            Value::Bool(value) => push(Token::Bool(*value)),
            Value::Integer(value) => push(Token::Integer(*value)),
            Value::Float(value) if value.is_nan() => Err(ValueError::NotANumber),
            Value::Float(value) => push(Token::Float(*value)),
            Value::Text(text) => push(Token::Text(text.clone())),
            Value::Bytes(bytes) => push(Token::Bytes(bytes.clone())),
            Value::List(values) => {
                push(Token::List(count(values.len())))?;
                values.iter().try_for_each(|value| value.push_tokens(tokens, depth + 1))
            }
            Value::Map(map) => {
                push(Token::Map(count(map.len())))?;
                map.iter().try_for_each(|(name, value)| {
                    tokens.push(Token::Name(name.clone())).map_err(|_| ValueError::TooManyNodes)?;
                    value.push_tokens(tokens, depth + 1)
                })
            }
        }
    }

    /// The value that the tokens are, if they are exactly one.
    pub(super) fn from_tokens(tokens: Tokens) -> Result<Value, DecodeError> {
        let mut tokens = tokens.into_iter();
        let value = read_value(&mut tokens, 0)?;
        if tokens.next().is_some() { Err(DecodeError::Trailing) } else { Ok(value) }
    }
}

fn read_value(tokens: &mut impl Iterator<Item = Token>, depth: usize) -> Result<Value, DecodeError> {
    let token = tokens.next().ok_or(DecodeError::Truncated)?;
    if depth == VALUE_DEPTH_MAX && matches!(token, Token::List(_) | Token::Map(_)) {
        return Err(DecodeError::TooLong);
    }
    Ok(match token {
        Token::Null => Value::Null,
        Token::Bool(value) => Value::Bool(value),
        Token::Integer(value) => Value::Integer(value),
        Token::Float(value) if value.is_nan() => return Err(DecodeError::Invalid),
        Token::Float(value) => Value::Float(value),
        Token::Text(text) => Value::Text(text),
        Token::Bytes(bytes) => Value::Bytes(bytes),
        // The claimed lengths allocate nothing: the tokens that follow were counted.
        Token::List(len) => Value::List((0..len).map(|_| read_value(tokens, depth + 1)).collect::<Result<_, _>>()?),
        Token::Map(len) => {
            let mut map = BTreeMap::new();
            for _ in 0..len {
                let Some(Token::Name(name)) = tokens.next() else { return Err(DecodeError::Invalid) };
                // One order, so that equal maps have equal bytes.
                if map.last_key_value().is_some_and(|(last, _)| *last >= name) {
                    return Err(DecodeError::Invalid);
                }
                map.insert(name, read_value(tokens, depth + 1)?);
            }
            Value::Map(map)
        }
        Token::Name(_) => return Err(DecodeError::Invalid),
    })
}

/// As formats that describe themselves write it, such as JSON and TOML.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Value::List(values) => serializer.collect_seq(values),
            Value::Map(map) => serializer.collect_map(map),
        }
    }
}

/// From formats that describe themselves, such as JSON and TOML.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Integer).map_err(|_| E::custom("a whole number of at most 63 bits"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(Bytes::copy_from_slice(bytes)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry()? {
            map.insert(name, value);
        }
        Ok(Value::Map(map))
    }
}
