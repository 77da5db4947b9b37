//! Every kind of data set gives the images and labels its files hold, in their order.

use residua::data::{DataSpec, Dataset, Split, UNKNOWN_LABEL, open};

use crate::support::data_files::{
    cifar_record, cifar_sized_image, fixture, gzip, idx, open_named, pixels, png, put, zip,
};

fn labels(set: &dyn Dataset) -> Vec<i64> {
    (0..set.len()).map(|i| set.label(i)).collect()
}

fn names(set: &dyn Dataset) -> Vec<String> {
    (0..set.len()).map(|i| set.sample_name(i)).collect()
}

fn colour(set: &dyn Dataset, index: usize) -> [u8; 3] {
    set.image(index).unwrap().pixels[..3].try_into().unwrap()
}

#[test]
fn cifar10_in_binary_form_is_found_in_its_folder_or_the_parent() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("cifar-10-batches-bin");
    for batch in 0..5 {
        let records = [cifar_record(&[batch], 0), cifar_record(&[9 - batch], batch as usize + 1)];
        put(&folder, &format!("data_batch_{}.bin", batch + 1), records.concat());
    }
    put(&folder, "test_batch.bin", cifar_record(&[7], 3));
    for place in [parent.path(), &folder] {
        let spec: DataSpec = format!("cifar10:{}", place.display()).parse().unwrap();
        let train = open(&spec, Split::Train).unwrap();
        assert_eq!(labels(&*train), [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]);
        assert_eq!(train.image(5).unwrap(), cifar_sized_image(3));
        assert_eq!(train.image(8).unwrap(), cifar_sized_image(0));
        assert_eq!(train.class_names()[9], "truck");
        let test = open(&spec, Split::Test).unwrap();
        assert_eq!((test.len(), test.label(0), test.image(0).unwrap()), (1, 7, cifar_sized_image(3)));
        let named = open_named(&format!("{spec}?split=train")).unwrap();
        assert_eq!(named.len(), 10);
    }
}

#[test]
fn cifar100_has_fine_and_coarse_labels_with_the_names_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "test.bin", [cifar_record(&[19, 99], 0), cifar_record(&[4, 0], 1)].concat());
    let coarse: String = (0..20).map(|i| format!("group{i}\n")).collect();
    put(folder.path(), "coarse_label_names.txt", coarse);
    let name = format!("cifar100:{}", folder.path().display());
    let fine = open_named(&name).unwrap();
    assert_eq!(
        (labels(&*fine), fine.class_names().len(), &*fine.class_names()[99]),
        (vec![99, 0], 100, "worm")
    );
    let coarse = open_named(&format!("{name}?labels=coarse")).unwrap();
    assert_eq!((labels(&*coarse), &*coarse.class_names()[19]), (vec![19, 4], "group19"));
    assert_eq!(coarse.image(1).unwrap(), cifar_sized_image(1));
}

#[test]
fn cifar_pickles_of_python_2_and_3_hold_the_same_as_the_binary_form() {
    let root = fixture("");
    let ten = open_named(&format!("cifar10:{}", root.display())).unwrap();
    assert_eq!((labels(&*ten), &*ten.class_names()[9]), (vec![3, 0, 9], "lorry"));
    assert_eq!(ten.image(2).unwrap(), cifar_sized_image(2));
    for split in ["train", "test"] {
        let name = format!("cifar100:{}?split={split}", root.display());
        let fine = open_named(&name).unwrap();
        assert_eq!(labels(&*fine), [99, 0, 50]);
        assert_eq!(fine.image(1).unwrap(), cifar_sized_image(1));
        assert_eq!(labels(&*open_named(&format!("{name},labels=coarse")).unwrap()), [19, 0, 7]);
    }
}

#[test]
fn svhn_files_of_scipy_are_read_plain_and_compressed_with_ten_meaning_zero() {
    for (file, expected) in [
        ("svhn_plain.mat", vec![0, 1, 9, 0]),
        ("svhn_compressed.mat", vec![0, 1, 9, 0]),
        ("svhn_single.mat", vec![0]),
    ] {
        let set = open_named(&format!("svhn:{}", fixture(file).display())).unwrap();
        assert_eq!(labels(&*set), expected, "{file}");
        for index in 0..set.len() {
            assert_eq!(set.image(index).unwrap(), cifar_sized_image(index), "{file} {index}");
        }
        assert_eq!(set.class_names().len(), 10);
    }
}

#[test]
fn idx_files_are_the_same_gzipped_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let images = idx(0x803, &[3, 4, 5], &pixels(0, 60));
    let plain = put(folder.path(), "i", &images);
    let packed = put(folder.path(), "i.gz", gzip(&images));
    let classes = put(folder.path(), "l.gz", gzip(&idx(0x801, &[3], &[4, 0, 2])));
    for path in [plain, packed] {
        let set = open_named(&format!("idx:{},{}", path.display(), classes.display())).unwrap();
        assert_eq!((labels(&*set), set.class_names().len()), (vec![4, 0, 2], 5));
        let image = set.image(1).unwrap();
        assert_eq!((image.width, image.height), (5, 4));
        let grey: Vec<u8> = image.pixels.iter().step_by(3).copied().collect();
        assert_eq!(grey, pixels(20, 20));
        assert!(image.pixels.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
        let unlabelled = open_named(&format!("idx:{}", path.display())).unwrap();
        assert_eq!(labels(&*unlabelled), [UNKNOWN_LABEL; 3]);
        assert!(unlabelled.class_names().is_empty());
    }
}

#[test]
fn class_folders_are_classes_in_the_order_of_their_names() {
    let root = tempfile::tempdir().unwrap();
    for (name, red) in
        [("train/b/2.png", 2), ("train/b/10.png", 10), ("train/a/deep/er/1.png", 1), ("test/a/9.png", 9)]
    {
        put(root.path(), name, png(3, 2, [red, 0, 0]));
    }
    put(root.path(), "train/a/readme.txt", "no image");
    let set = open_named(&format!("folder:{}?split=train", root.path().display())).unwrap();
    assert_eq!(set.class_names(), ["a", "b"]);
    assert_eq!(names(&*set), ["a/deep/er/1.png", "b/10.png", "b/2.png"]);
    assert_eq!(labels(&*set), [0, 1, 1]);
    assert_eq!((colour(&*set, 1), set.image(1).unwrap().width), ([10, 0, 0], 3));
    let whole = open_named(&format!("folder:{}", root.path().display())).unwrap();
    assert_eq!(whole.class_names(), ["test", "train"]);
}

#[test]
fn a_table_reads_images_from_a_folder_or_a_zip_with_or_without_its_top_folder() {
    let root = tempfile::tempdir().unwrap();
    let images = [("10.png", [1, 0, 0]), ("2.png", [2, 0, 0]), ("7.png", [3, 0, 0])];
    let table = put(
        root.path(),
        "t.csv",
        "image,superclass_index,subclass_index,description\n10.png,1,1,\"a, b\"\n2.png,0,-1,\n./7.png,1,,x\n",
    );
    put(
        root.path(),
        "subclass_mapping.csv",
        "index,class\n2,novel\n1,\"terrier, \"\"Scottie\"\"\"\n0,finch\n",
    );
    let members = |prefix: &str| {
        let named: Vec<_> = images.iter().map(|(n, c)| (format!("{prefix}{n}"), png(2, 2, *c))).collect();
        zip(&named.iter().map(|(n, bytes)| (n.as_str(), bytes.clone())).collect::<Vec<_>>())
    };
    images.iter().for_each(|(name, c)| drop(put(root.path(), &format!("d/{name}"), png(2, 2, *c))));
    put(root.path(), "flat.zip", members(""));
    put(root.path(), "nested.zip", members("images/"));
    for place in ["d", "flat.zip", "nested.zip"] {
        let name = format!("csv:{},images={}", table.display(), root.path().join(place).display());
        let set = open_named(&name).unwrap();
        assert_eq!(labels(&*set), [1, UNKNOWN_LABEL, UNKNOWN_LABEL]);
        assert_eq!(set.class_names(), ["finch", "terrier, \"Scottie\"", "novel"]);
        assert_eq!([colour(&*set, 0), colour(&*set, 1)], [[1, 0, 0], [2, 0, 0]]);
        let coarse = open_named(&format!("{name}?labels=superclass")).unwrap();
        assert_eq!((labels(&*coarse), coarse.class_names().len()), (vec![1, 0, 1], 2));
    }
}

#[test]
fn openood_lists_give_paths_and_labels() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "images/mnist/a b.png", png(1, 1, [7, 8, 9]));
    let text = "mnist/a b.png 3\n\nmnist/a b.png -1\nmnist/a b.png {\"ood\": \"near\"}\n";
    let list = put(root.path(), "l.txt", text);
    let set = open_named(&format!("list:{},root={}", list.display(), root.path().join("images").display()))
        .unwrap();
    assert_eq!(labels(&*set), [3, UNKNOWN_LABEL, UNKNOWN_LABEL]);
    assert_eq!((colour(&*set, 2), set.class_names().len()), ([7, 8, 9], 4));
}

#[test]
fn images_without_labels_come_in_numeric_order_from_folder_zip_or_file() {
    let root = tempfile::tempdir().unwrap();
    let members: Vec<_> = [10u8, 9, 100].map(|n| (format!("{n}.png"), png(1, 1, [n, 0, 0]))).into();
    members.iter().for_each(|(name, bytes)| drop(put(root.path(), &format!("d/{name}"), bytes)));
    let borrowed: Vec<_> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    put(root.path(), "z.zip", zip(&borrowed));
    for place in ["d", "z.zip"] {
        let set = open_named(&format!("images:{}", root.path().join(place).display())).unwrap();
        assert_eq!(names(&*set), ["9.png", "10.png", "100.png"]);
        assert_eq!((colour(&*set, 2), labels(&*set)), ([100, 0, 0], vec![UNKNOWN_LABEL; 3]));
    }
    let one = open_named(&format!("images:{}", root.path().join("d/9.png").display())).unwrap();
    assert_eq!((one.len(), names(&*one), colour(&*one, 0)), (1, vec!["9.png".to_owned()], [9, 0, 0]));
}

#[test]
fn options_limit_sample_and_size_apply_to_every_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), "i", idx(0x803, &[50, 4, 5], &pixels(0, 1000)));
    let name = format!("idx:{}", path.display());
    let whole = open_named(&name).unwrap();
    let first = open_named(&format!("{name}?limit=3")).unwrap();
    assert_eq!((first.len(), first.image(2).unwrap()), (3, whole.image(2).unwrap()));
    let some = open_named(&format!("{name}?sample=7,seed=1,size=9")).unwrap();
    assert_eq!(some.len(), 7);
    assert_eq!((some.image(6).unwrap().width, some.image(6).unwrap().height), (9, 9));
    let indices: Vec<usize> = names(&*some).iter().map(|name| name.parse().unwrap()).collect();
    let again = open_named(&format!("{name}?sample=7,seed=1")).unwrap();
    assert_eq!(again.image(3).unwrap(), whole.image(indices[3]).unwrap());
    assert_eq!(open_named(&format!("{name}?limit=0")).unwrap_err().exit_code(), 2);
}
