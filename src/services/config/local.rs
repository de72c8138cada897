//! The layers of this node alone: defaults, file, environment and overrides.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

use super::layers::{read_variable, split};
use super::limits::{LAYER_VALUES_MAX, PATH_BYTES_MAX, UNDO_MAX};
use super::path::under;
use super::{Event, Hidden, Layer, Leaves, LoadError, Path, PathError, SetError, State, Value, convert};

impl State {
    /// Sets a value on this node alone, over all other layers. A map replaces the overrides below the path, and any value those above and
    /// below it.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing was changed.
    pub fn update<T: Serialize + ?Sized>(&mut self, path: &str, value: &T, events: &mut Vec<Event>) -> Result<(), SetError> {
        let (path, leaves) = self.to_set(path, value)?;
        let kept = self.overrides().len();
        if kept + leaves.len() > LAYER_VALUES_MAX {
            return Err(SetError::TooMany { len: kept + leaves.len(), len_max: LAYER_VALUES_MAX });
        }
        // A value above the path gives way, so it belongs to what is undone together with the rest.
        let top = path.above().find(|above| self.overrides().contains_key(*above)).and_then(|above| Path::try_from(above).ok());
        self.replace_overrides(top.as_ref().unwrap_or(&path), leaves.into_iter().collect(), events);
        Ok(())
    }

    /// Removes what was set on this node at and below a path, so that the other layers answer again.
    ///
    /// # Errors
    ///
    /// [`SetError::InvalidPath`] or [`SetError::NotFound`]; nothing was changed.
    pub fn reset(&mut self, path: &str, events: &mut Vec<Event>) -> Result<(), SetError> {
        let path = checked_path(path)?;
        if under(self.overrides(), &path).next().is_none() {
            return Err(SetError::NotFound(path));
        }
        self.replace_overrides(&path, Leaves::new(), events);
        Ok(())
    }

    /// Undoes the last `count` changes by [`State::update`] and [`State::reset`], of which [`UNDO_MAX`] are kept.
    ///
    /// # Errors
    ///
    /// [`SetError::NoHistory`]; nothing was changed.
    pub fn rollback(&mut self, count: usize, events: &mut Vec<Event>) -> Result<(), SetError> {
        if count > self.undo.len() {
            return Err(SetError::NoHistory { path: None, kept: self.undo.len() });
        }
        let mut undone = self.overrides().clone();
        for (path, leaves) in self.undo.split_off(self.undo.len() - count).into_iter().rev() {
            undone.retain(|at, _| !at.is_under(&path));
            undone.extend(leaves);
        }
        self.replace(Layer::Override, undone, events);
        Ok(())
    }

    /// Replaces the defaults: a map of namespaces.
    ///
    /// # Errors
    ///
    /// A [`LoadError`]; the former defaults stay.
    pub fn load_defaults(&mut self, tree: Value, events: &mut Vec<Event>) -> Result<(), LoadError> {
        self.load(Layer::Default, tree, events)
    }

    /// Replaces what the file says, all of it or nothing. `parse` reads the text, for example as TOML, into a map of namespaces.
    ///
    /// # Errors
    ///
    /// A [`LoadError`], of which [`Event::FileRefused`] tells as well; what the file said before stays.
    pub fn load_file<'a, E: Display>(
        &mut self,
        text: &'a str,
        parse: impl FnOnce(&'a str) -> Result<Value, E>,
        events: &mut Vec<Event>,
    ) -> Result<(), LoadError> {
        let tree = parse(text).map_err(|error| LoadError::Broken(error.to_string()));
        tree.and_then(|tree| self.load(Layer::File, tree, events)).inspect_err(|error| {
            self.counters.files_refused += 1;
            events.push(Event::FileRefused(error.clone()));
        })
    }

    /// Replaces what the environment says. With the prefix `MESHWORK`, the variable `MESHWORK__APP__MAX_RATE` is the path `app/max_rate`: two
    /// underscores separate names, and all are in lower case. Others are passed over. `true` and `false`, whole numbers of 64 bits, and numbers with a
    /// point or an exponent are what they look like; all else is text, as is what stands in double quotes.
    ///
    /// # Errors
    ///
    /// A [`LoadError`], also when one variable is above another; what the environment said before stays.
    pub fn load_environment<'a>(
        &mut self,
        prefix: &str,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        events: &mut Vec<Event>,
    ) -> Result<(), LoadError> {
        let mut leaves = Leaves::new();
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix(prefix).and_then(|rest| rest.strip_prefix("__")) else { continue };
            let path = Path::try_from(&*name.to_ascii_lowercase().replace("__", "/")).and_then(Path::of_value);
            let path = path.map_err(|problem| SetError::InvalidPath { at: shown(variable), problem })?;
            leaves.insert(path, read_variable(text));
        }
        if let Some((above, _)) = leaves.iter().find(|(path, _)| under(&leaves, path).nth(1).is_some()) {
            return Err(SetError::WrongType { expected: format!("one value at or below {above}"), found: "several".to_owned() }.into());
        }
        self.check_layer(&leaves)?;
        self.replace(Layer::Environment, leaves, events);
        Ok(())
    }

    fn load(&mut self, layer: Layer, tree: Value, events: &mut Vec<Event>) -> Result<(), LoadError> {
        let Value::Map(namespaces) = tree else { return Err(LoadError::NoMap(tree.kind())) };
        let mut leaves = Leaves::new();
        for (name, tree) in namespaces {
            leaves.extend(split(&checked_path(&name)?, tree).map_err(invalid)?);
        }
        self.check_layer(&leaves)?;
        self.replace(layer, leaves, events);
        Ok(())
    }

    fn check_layer(&self, leaves: &Leaves) -> Result<(), SetError> {
        if leaves.len() > LAYER_VALUES_MAX {
            return Err(SetError::TooMany { len: leaves.len(), len_max: LAYER_VALUES_MAX });
        }
        leaves.iter().try_for_each(|(path, value)| {
            value.check().map_err(|problem| SetError::TooLarge { path: path.clone(), problem })?;
            self.validate(path, value).map_err(|reason| SetError::Refused { path: path.clone(), reason })
        })
    }

    /// The values of which `value` consists, once all of them are found to be allowed.
    pub(super) fn to_set<T: Serialize + ?Sized>(&self, path: &str, value: &T) -> Result<(Path, Vec<(Path, Value)>), SetError> {
        let path = checked_path(path)?;
        let value = convert::to_value(value).map_err(|unfit| SetError::WrongType { expected: unfit.expected, found: unfit.found })?;
        let leaves = split(&path, value).map_err(invalid)?;
        for (path, value) in &leaves {
            value.check().map_err(|problem| SetError::TooLarge { path: path.clone(), problem })?;
            self.may_set(path, value)?;
        }
        if leaves.is_empty() && !self.is_updatable(&path) {
            return Err(SetError::NotUpdatable(path));
        }
        Ok((path, leaves))
    }

    pub(super) fn may_set(&self, path: &Path, value: &Value) -> Result<(), SetError> {
        self.permits(path, value).map_err(|problem| match problem {
            Hidden::Refused(reason) => SetError::Refused { path: path.clone(), reason },
            _ => SetError::NotUpdatable(path.clone()),
        })
    }

    fn overrides(&self) -> &Leaves {
        const NONE: &Leaves = &Leaves::new();
        self.local.get(&Layer::Override).unwrap_or(NONE)
    }

    fn replace_overrides(&mut self, path: &Path, new: Leaves, events: &mut Vec<Event>) {
        let former: Leaves = under(self.overrides(), path).map(|(path, value)| (path.clone(), value.clone())).collect();
        self.change(Some(path), (Layer::Override, self.me), events, |state| {
            let leaves = state.local.entry(Layer::Override).or_default();
            former.keys().for_each(|path| drop(leaves.remove(path)));
            leaves.extend(new);
        });
        if self.undo.len() == UNDO_MAX {
            self.undo.pop_front();
        }
        self.undo.push_back((path.clone(), former));
    }

    fn replace(&mut self, layer: Layer, leaves: BTreeMap<Path, Value>, events: &mut Vec<Event>) {
        self.change(None, (layer, self.me), events, |state| drop(state.local.insert(layer, leaves)));
    }
}

pub(super) fn checked_path(text: &str) -> Result<Path, SetError> {
    Path::try_from(text).map_err(|problem| SetError::InvalidPath { at: shown(text), problem })
}

/// What is shown of a text that is no path: it is bounded as paths are.
fn shown(text: &str) -> String {
    text[..text.floor_char_boundary(PATH_BYTES_MAX)].to_owned()
}

pub(super) fn invalid((path, problem): (Path, PathError)) -> SetError {
    SetError::InvalidPath { at: String::from(path), problem }
}
