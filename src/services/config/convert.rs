//! Between a [`Value`] and the types of the application, by serde.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, EnumAccess, IntoDeserializer, Unexpected, VariantAccess, Visitor};
use serde::ser::{self, Serialize, Serializer};

use super::value::Value;

/// A value of the application that is no [`Value`], or the other way around.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// What there should have been.
    pub expected: String,
    /// What there was; empty when `expected` tells all.
    pub found: String,
}

impl Unfit {
    fn because(expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Unfit { expected: expected.to_string(), found: found.to_string() }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

impl std::error::Error for Unfit {}

impl de::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unfit::because(message, "")
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Unfit::because(expected, found)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Unfit::because(expected, found)
    }
}

impl ser::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unfit::because(message, "")
    }
}

pub(super) fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Unfit> {
    value.serialize(Writer)
}

pub(super) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Unfit> {
    T::deserialize(Reader(value))
}

struct Reader(Value);

impl IntoDeserializer<'_, Unfit> for Reader {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Reader {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Integer(value) => visitor.visit_i64(value),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Text(text) => visitor.visit_string(text),
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes.to_vec()),
            Value::List(values) => {
                let mut values = SeqDeserializer::new(values.into_iter().map(Reader));
                let made = visitor.visit_seq(&mut values)?;
                values.end()?;
                Ok(made)
            }
            Value::Map(map) => visitor.visit_map(MapDeserializer::new(map.into_iter().map(|(name, value)| (name, Reader(value))))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        if self.0 == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::Text(name) => visitor.visit_enum(Variant { name, content: Value::Null }),
            Value::Map(map) if map.len() == 1 => {
                let (name, content) = map.into_iter().next().expect("the map has one entry");
                visitor.visit_enum(Variant { name, content })
            }
            other => Err(Unfit::because("a variant, as text or as a map of one name", other.kind())),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

struct Variant {
    name: String,
    content: Value,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Unfit;
    type Variant = Reader;

    fn variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Reader), Unfit> {
        Ok((seed.deserialize(self.name.into_deserializer())?, Reader(self.content)))
    }
}

impl<'de> VariantAccess<'de> for Reader {
    type Error = Unfit;

    fn unit_variant(self) -> Result<(), Unfit> {
        if self.0 == Value::Null { Ok(()) } else { Err(Unfit::because("a variant without content", self.0.kind())) }
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Unfit> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_any(visitor)
    }
}

struct Writer;

/// A list or map that is being written; within a variant, the value is the one entry of a map.
struct Compound {
    variant: Option<&'static str>,
    list: Vec<Value>,
    map: BTreeMap<String, Value>,
    name: String,
}

impl Compound {
    fn new(variant: Option<&'static str>) -> Self {
        Compound { variant, list: Vec::new(), map: BTreeMap::new(), name: String::new() }
    }

    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        self.list.push(to_value(value)?);
        Ok(())
    }

    fn insert<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Unfit> {
        self.map.insert(name.to_owned(), to_value(value)?);
        Ok(())
    }

    fn list(self) -> Result<Value, Unfit> {
        Ok(in_variant(self.variant, Value::List(self.list)))
    }

    fn map(self) -> Result<Value, Unfit> {
        Ok(in_variant(self.variant, Value::Map(self.map)))
    }
}

fn in_variant(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(name) => Value::Map(BTreeMap::from([(name.to_owned(), value)])),
        None => value,
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty => |$value:ident| $result:expr;)*) => {
        $(fn $method(self, $value: $type) -> Result<Value, Unfit> { $result })*
    };
}

impl Serializer for Writer {
    type Ok = Value;
    type Error = Unfit;
    type SerializeSeq = Compound;
    type SerializeTuple = Compound;
    type SerializeTupleStruct = Compound;
    type SerializeTupleVariant = Compound;
    type SerializeMap = Compound;
    type SerializeStruct = Compound;
    type SerializeStructVariant = Compound;

    scalars! {
        serialize_bool: bool => |value| Ok(Value::Bool(value));
        serialize_i8: i8 => |value| Ok(Value::Integer(value.into()));
        serialize_i16: i16 => |value| Ok(Value::Integer(value.into()));
        serialize_i32: i32 => |value| Ok(Value::Integer(value.into()));
        serialize_i64: i64 => |value| Ok(Value::Integer(value));
        serialize_u8: u8 => |value| Ok(Value::Integer(value.into()));
        serialize_u16: u16 => |value| Ok(Value::Integer(value.into()));
        serialize_u32: u32 => |value| Ok(Value::Integer(value.into()));
        serialize_u64: u64 => |value| i64::try_from(value).map(Value::Integer).map_err(|_| Unfit::because("a whole number of at most 63 bits", value));
        serialize_f32: f32 => |value| Ok(Value::Float(value.into()));
        serialize_f64: f64 => |value| Ok(Value::Float(value));
        serialize_char: char => |value| Ok(Value::Text(value.to_string()));
        serialize_str: &str => |value| Ok(Value::Text(value.to_owned()));
        serialize_bytes: &[u8] => |value| Ok(Value::Bytes(Bytes::copy_from_slice(value)));
        serialize_unit_struct: &'static str => |_name| Ok(Value::Null);
    }

    fn serialize_none(self) -> Result<Value, Unfit> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Unfit> {
        to_value(value)
    }

    fn serialize_unit(self) -> Result<Value, Unfit> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Unfit> {
        Ok(Value::Text(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Unfit> {
        to_value(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Unfit> {
        Ok(in_variant(Some(variant), to_value(value)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound, Unfit> {
        Ok(Compound::new(None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound, Unfit> {
        Ok(Compound::new(None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound, Unfit> {
        Ok(Compound::new(None))
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Compound, Unfit> {
        Ok(Compound::new(Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound, Unfit> {
        Ok(Compound::new(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Compound, Unfit> {
        Ok(Compound::new(None))
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, _: usize) -> Result<Compound, Unfit> {
        Ok(Compound::new(Some(variant)))
    }
}

macro_rules! lists {
    ($($trait:ident::$method:ident),*) => {
        $(impl ser::$trait for Compound {
            type Ok = Value;
            type Error = Unfit;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
                self.push(value)
            }

            fn end(self) -> Result<Value, Unfit> {
                self.list()
            }
        })*
    };
}
lists!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! structs {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Compound {
            type Ok = Value;
            type Error = Unfit;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unfit> {
                self.insert(name, value)
            }

            fn end(self) -> Result<Value, Unfit> {
                self.map()
            }
        })*
    };
}
structs!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Compound {
    type Ok = Value;
    type Error = Unfit;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Unfit> {
        match to_value(name)? {
            Value::Text(text) => self.name = text,
            other => return Err(Unfit::because("a name as text", other.kind())),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        let name = std::mem::take(&mut self.name);
        self.insert(&name, value)
    }

    fn end(self) -> Result<Value, Unfit> {
        self.map()
    }
}
