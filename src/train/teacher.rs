//! A trained superclass model that a subclass head should agree with.

use super::Targets;
use super::objective::Consistency;
use crate::checkpoint::Trained;
use crate::data::{Level, Taxonomy, Transform};
use crate::error::{Error, Result};

/// A teacher, and how its classes and the student's belong together.
#[derive(Debug, Clone)]
pub struct Teacher {
    /// The model.
    pub trained: Trained,
    /// The term of the loss.
    pub consistency: Consistency,
}

impl Teacher {
    /// Matches a teacher's superclasses with those of a subclass head by their numbers in the files. What else the user
    /// should know goes to `notes`.
    ///
    /// # Errors
    /// Data with one level, a student without subclasses, a teacher without superclasses or with other images, fewer than two
    /// superclasses in common.
    pub fn new(
        trained: Trained,
        targets: &Targets,
        transform: &Transform,
        (weight, temperature): (f64, f64),
        notes: &mut Vec<String>,
    ) -> Result<Teacher> {
        let path = trained.path.display().to_string();
        let fail = |what: String| Err(Error::usage(format!("--teacher {path}: {what}")));
        let student = targets.heads.last().expect("a head");
        let (Some(taxonomy), Some(Level::Fine)) = (&targets.taxonomy, student.level) else {
            return fail(
                "a superclass model teaches a head over subclasses, of data with labels=both".into(),
            );
        };
        if let Some(own) = &trained.transform {
            let seen = |transform: &Transform| (transform.size, transform.normalize, transform.degrade);
            if seen(own) != seen(transform) {
                return fail(format!(
                    "it was trained on images of {} pixels normalised by {:?}; here they have {} and {:?}, and both see the same",
                    own.size, own.normalize, transform.size, transform.normalize
                ));
            }
        }
        let Some((head, superclasses)) = superclass_head(&trained, taxonomy) else {
            return fail("none of its heads is over the superclasses of the training data".into());
        };
        let of_student = targets.superclasses();
        let mut common: Vec<i64> =
            superclasses.iter().copied().filter(|superclass| of_student.contains(superclass)).collect();
        common.sort_unstable();
        if common.len() < 2 {
            return fail(format!(
                "it has {} superclasses of the training data; two are needed",
                common.len()
            ));
        }
        let place = |superclass: &i64| common.binary_search(superclass).map_or(-1, |place| place as i32);
        let name = |superclass: &i64| taxonomy.superclasses[*superclass as usize].clone();
        let mut unknown: Vec<String> = of_student.iter().filter(|one| place(one) < 0).map(name).collect();
        unknown.dedup();
        if !unknown.is_empty() {
            notes.push(format!(
                "the teacher does not know {}: it says nothing about samples of that",
                unknown.join(", ")
            ));
        }
        let consistency = Consistency {
            weight,
            head,
            count: common.len(),
            groups: of_student.iter().map(place).collect(),
            teacher_groups: superclasses.iter().map(place).collect(),
            temperature,
        };
        Ok(Teacher { trained, consistency })
    }
}

/// The head over superclasses, and the number of each of its classes in the files.
fn superclass_head(trained: &Trained, taxonomy: &Taxonomy) -> Option<(usize, Vec<i64>)> {
    let same_names = |classes: &[String], indices: &[i64]| {
        classes.iter().zip(indices).all(|(name, &index)| {
            usize::try_from(index).is_ok_and(|index| taxonomy.superclasses.get(index) == Some(name))
        })
    };
    trained.heads.iter().enumerate().find_map(|(head, classes)| {
        let superclasses = matches!(classes.level, None | Some(Level::Coarse));
        (superclasses && same_names(&classes.classes, &classes.indices))
            .then(|| (head, classes.indices.clone()))
    })
}
