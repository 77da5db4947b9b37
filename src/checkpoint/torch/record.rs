//! The training record of a PyTorch file: losses, accuracies and the epoch, from the entries beside the parameters.

use std::collections::BTreeSet;

use super::super::contents::TrainingRecord;
use super::super::selection::STATE_KEYS;
use super::tensors::{Described, Reader, is_tensor};
use crate::error::Result;
use crate::pickle::Node;

impl<'p> Reader<'p, '_> {
    /// Reads the record, and says which entries of the outermost dictionary are in it.
    pub(super) fn training_record(&mut self) -> Result<(TrainingRecord, BTreeSet<&'p str>)> {
        let mut record = TrainingRecord::default();
        let mut used = BTreeSet::new();
        // Where the root is the dictionary of parameters itself, its tensors are no record of anything.
        let bare = !STATE_KEYS.iter().any(|key| self.root.get(key).is_some());
        for (key, value) in self.root.entries().unwrap_or_default() {
            let Some(key) = key.text().filter(|_| !(bare && is_tensor(value))) else { continue };
            if let Some(text) = value.text() {
                self.spend(text.len())?;
                record.texts.insert(key.to_string(), text.to_string());
            } else if let Some(number) = self.number(value)? {
                record.numbers.insert(key.to_string(), number);
            } else if let Some(series) = self.series(value)? {
                record.series.insert(key.to_string(), series);
            } else {
                continue;
            }
            used.insert(key);
        }
        Ok((record, used))
    }

    /// Takes from the budget of the training record.
    fn spend(&mut self, amount: usize) -> Result<()> {
        match self.record_budget.checked_sub(amount) {
            Some(rest) => self.record_budget = rest,
            None => {
                let found = "lists or texts that are referred to over and over";
                return Err(self.malformed("a training record no longer than the pickle", found));
            }
        }
        Ok(())
    }

    /// A list, a tuple or a NumPy array of numbers; `None` for anything else, which is no part of the record.
    fn series(&mut self, node: Node<'p>) -> Result<Option<Vec<f64>>> {
        if let Some(elements) = node.elements() {
            self.spend(elements.len())?;
            return elements.map(|element| self.number(element)).collect();
        }
        let Ok(Some(array)) = node.array() else { return Ok(None) };
        if array.shape.len() != 1 {
            return Ok(None);
        }
        self.spend(array.element_count())?;
        Ok((0..array.element_count()).map(|index| array.float_at(index)).collect())
    }

    /// A number: Python's, NumPy's, or a tensor of no dimensions.
    fn number(&mut self, node: Node<'p>) -> Result<Option<f64>> {
        if let Some(number) = node.float() {
            return Ok(Some(number));
        }
        if !is_tensor(node) {
            return Ok(None);
        }
        match self.described(node)? {
            Described::View(view) if view.shape.is_empty() => {
                let (_, tensor) = self.tensor(view, "a training record")?;
                Ok(tensor.to_f64().first().copied())
            }
            _ => Ok(None),
        }
    }
}
