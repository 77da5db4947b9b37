//! The expansion of an operation's declaration in the list: the struct of its operands, its variant of [`Call`](super::Call), the
//! checks of its operands, and its line in `dispatch!`.

macro_rules! access {
    (read) => {
        Access::Read
    };
    (write) => {
        Access::Write
    };
    (update) => {
        Access::Update
    };
}

macro_rules! element {
    (working) => {
        ElementType::Working
    };
    (accumulator) => {
        ElementType::Accumulator
    };
    (float) => {
        ElementType::Float
    };
    (i32) => {
        ElementType::I32
    };
    (u8) => {
        ElementType::U8
    };
    (f32) => {
        ElementType::F32
    };
    (f64) => {
        ElementType::F64
    };
}

macro_rules! touched {
    ($elements:expr) => {
        $elements
    };
    ($elements:expr, $touched:expr) => {
        $touched
    };
}

/// Declares operations.
///
/// Those whose structs are written by hand come first, in braces, by name: `NAME = STRUCT in FAMILY;`. The others as
///
/// ```text
/// /// Documentation.
/// NAME = STRUCT(a: ATTRIBUTES) in FAMILY { OPERAND: ACCESS ELEMENT[ELEMENTS], ... }
/// ```
///
/// where ACCESS is `read`, `write` (every element is overwritten) or `update`, ELEMENT names an
/// [`ElementType`](super::ElementType) and ELEMENTS is an expression of the attributes `a`; `touching[N]` behind it says how many
/// elements the operation cannot do without, where that is not all of them.
macro_rules! operations {
    (
        $d:tt
        { $( $own:ident = $Own:ident in $own_family:ident; )* }
        $( $(#[$doc:meta])* $name:ident = $Op:ident($a:ident: $Attributes:ty) in $family:ident {
            $( $operand:ident: $access:ident $element:ident[$elements:expr]
                $(touching[$touched:expr])? ),* $(,)?
        } )*
    ) => {
        $(
            $(#[$doc])*
            ///
            #[doc = concat!("Operands:", $(" ", stringify!($operand), " (", stringify!($access), ")",)* ".")]
            #[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
            #[allow(missing_docs)]
            pub struct $Op<B> {
                pub attributes: $Attributes,
                $( pub $operand: B, )*
            }

            impl<B: Copy> $Op<B> {
                /// The operands, with the type, size and access of each.
                pub fn operands(&self) -> Vec<Operand<B>> {
                    let $a = &self.attributes;
                    vec![$(
                        Operand {
                            name: stringify!($operand),
                            place: self.$operand,
                            access: access!($access),
                            element: element!($element),
                            elements: $elements,
                            touched: touched!($elements $(, $touched)?),
                        },
                    )*]
                }

                /// The same operation with other operands.
                pub fn map<C>(&self, f: &mut dyn FnMut(B) -> C) -> $Op<C> {
                    $Op {
                        attributes: self.attributes,
                        $( $operand: f(self.$operand), )*
                    }
                }

                fn check(&self) -> Result<()> {
                    self.attributes.check()
                }

                fn shape(&self) -> String {
                    self.attributes.shape()
                }

                fn form(&self) -> String {
                    String::new()
                }

                fn flop(&self) -> f64 {
                    self.attributes.flop()
                }
            }

            impl $Op<()> {
                /// The operation, with its operands nowhere.
                pub fn alone(attributes: $Attributes) -> Call<()> {
                    $Op { attributes, $( $operand: (), )* }.into()
                }
            }

            impl<B> From<$Op<B>> for Call<B> {
                fn from(operation: $Op<B>) -> Call<B> {
                    Call::$Op(operation)
                }
            }
        )*

        /// An operation with its operands; `B` names a buffer (in a plan), a place in memory, or nothing.
        #[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
        #[allow(missing_docs)]
        pub enum Call<B> {
            $( $Own($Own<B>), )*
            $( $Op($Op<B>), )*
        }

        impl<B: Copy> Call<B> {
            /// Every operation's name.
            pub const NAMES: &'static [&'static str] = &[$( stringify!($own), )* $( stringify!($name), )*];

            /// The operation's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $( Call::$Own(_) => stringify!($own), )*
                    $( Call::$Op(_) => stringify!($name), )*
                }
            }

            /// The operands, with the type, size and access of each.
            pub fn operands(&self) -> Vec<Operand<B>> {
                match self {
                    $( Call::$Own(operation) => operation.operands(), )*
                    $( Call::$Op(operation) => operation.operands(), )*
                }
            }

            /// The same call, its operands numbered by position.
            pub fn numbered(&self) -> Call<usize> {
                let mut positions = 0..;
                self.map(|_| positions.next().expect("numbers without end"))
            }

            /// The same call with other operands.
            pub fn map<C>(&self, mut f: impl FnMut(B) -> C) -> Call<C> {
                // One function for each pair of types, not for each caller's closure: there are three times as many.
                self.map_by(&mut f)
            }

            fn map_by<C>(&self, f: &mut dyn FnMut(B) -> C) -> Call<C> {
                match self {
                    $( Call::$Own(operation) => operation.map(f).into(), )*
                    $( Call::$Op(operation) => operation.map(f).into(), )*
                }
            }

            /// Refuses extents that make no sense: every kernel may rely on them.
            ///
            /// # Errors
            /// Something is empty, a window hangs outside its input, or the like.
            pub fn check_attributes(&self) -> Result<()> {
                match self {
                    $( Call::$Own(operation) => operation.check(), )*
                    $( Call::$Op(operation) => operation.check(), )*
                }
            }

            /// The extents in one word: `128x32x32x64-k64-3x3-s1p1`, `131072x64-relu`.
            pub fn shape(&self) -> String {
                match self {
                    $( Call::$Own(operation) => operation.shape(), )*
                    $( Call::$Op(operation) => operation.shape(), )*
                }
            }

            /// The end of its shape that names a convolution's prologue and epilogue: `-affine-relu-statistics`, `-add-mask-reduce`.
            pub fn form(&self) -> String {
                match self {
                    $( Call::$Own(operation) => operation.form(), )*
                    $( Call::$Op(operation) => operation.form(), )*
                }
            }

            /// The same call on fewer rows or images, where an operand would have more than about so many elements. Convolutions stay
            /// as they are.
            #[must_use]
            pub fn cut(&self, elements: usize) -> Call<B> {
                let mut call = *self;
                match &mut call {
                    $( Call::$Own(_) => {} )*
                    $( Call::$Op(operation) => operation.attributes.cut(elements), )*
                }
                call
            }

            /// Floating-point operations of matrix products, two per multiply-add; 0 where there are none.
            pub fn flop(&self) -> f64 {
                match self {
                    $( Call::$Own(operation) => operation.flop(), )*
                    $( Call::$Op(operation) => operation.flop(), )*
                }
            }
        }

        /// Passes a call to the function of its operation, which a device has in a module for each family:
        /// `FAMILY::NAME(device, &operation, workspace)`. A device that lacks one does not compile. What stands behind the workspace
        /// is passed to convolutions only: a device may choose between kernels for them.
        macro_rules! dispatch {
            ($d call:expr, $d device:expr, $d workspace:expr $d (, $d kernel:expr)?) => {
                match $d call {
                    $( Call::$Own(operation) => {
                        $own_family::$own($d device, operation, $d workspace $d (, $d kernel)?)
                    } )*
                    $( Call::$Op(operation) => $family::$name($d device, operation, $d workspace), )*
                }
            };
        }
        pub(crate) use dispatch;
    };
}

pub(super) use {access, element, operations, touched};
