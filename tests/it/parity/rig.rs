//! Records one operation on a tape, in f64 unless asked otherwise, feeds it golden tensors, and compares what comes out.

use residua::autograd::{Mode, Parameter, Tape, Var};
use residua::backend::cpu::{Cpu, Element};
use residua::ops::Device;
use residua::plan::{BufferId, Executable};
use residua::tensor::{DType, HostValues, Shape, Span, aligned};

use crate::parity::golden::{Array, Case, assert_close};

/// A tape under test. Parameters lie behind each other at the beginning of memory, each followed by its gradient.
pub struct Rig<T: Element = f64> {
    pub tape: Tape,
    device: Cpu<T>,
    parameter_bytes: usize,
    parameters: Vec<(Span, Vec<f64>)>,
    inputs: Vec<(BufferId, Vec<f64>)>,
    labels: Vec<(BufferId, Vec<i32>)>,
}

/// A step that ran.
pub struct Outcome<T: Element = f64> {
    device: Cpu<T>,
    executable: Executable,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::in_type()
    }
}

impl<T: Element> Rig<T> {
    pub fn in_type() -> Rig<T> {
        Rig {
            tape: Tape::new(T::DTYPE, Mode::Train),
            device: Cpu::new(2).expect("two threads"),
            parameter_bytes: 0,
            parameters: Vec::new(),
            inputs: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// An activation that a gradient should reach; NCHW becomes NHWC.
    pub fn input(&mut self, array: &Array) -> Var {
        let array = array.channels_last();
        let var = self.tape.differentiable_input("input", Shape::new(&array.shape));
        self.inputs.push((var.buffer, array.values));
        var
    }

    /// The gradient that flows into `output`.
    pub fn gradient(&mut self, output: Var, array: &Array) -> BufferId {
        let array = array.channels_last();
        assert_eq!(output.shape, Shape::new(&array.shape), "the output has the shape of its gradient");
        let var = self.tape.number_input("output gradient", output.shape);
        self.inputs.push((var.buffer, array.values));
        var.buffer
    }

    /// Numbers that no gradient should reach.
    pub fn numbers(&mut self, values: &[f64]) -> BufferId {
        let var = self.tape.number_input("numbers", [values.len()]);
        self.inputs.push((var.buffer, values.to_vec()));
        var.buffer
    }

    pub fn labels(&mut self, array: &Array) -> Var {
        let var = self.tape.input("labels", Shape::new(&array.shape), DType::I32);
        self.labels.push((var.buffer, array.labels()));
        var
    }

    fn place(&mut self, elements: usize) -> Span {
        let span = Span { offset: self.parameter_bytes, elements, dtype: T::DTYPE };
        self.parameter_bytes = aligned(self.parameter_bytes + span.bytes());
        span
    }

    /// A parameter with a gradient; OIHW becomes KRSC.
    pub fn parameter(&mut self, array: &Array) -> Parameter {
        let statistic = self.statistic(array);
        Parameter { gradient: Some(self.place(array.values.len())), ..statistic }
    }

    /// A parameter without a gradient.
    pub fn statistic(&mut self, array: &Array) -> Parameter {
        let array = array.channels_last();
        let value = self.place(array.values.len());
        let shape = Shape::new(&array.shape);
        self.parameters.push((value, array.values));
        Parameter { value, gradient: None, copy: None, shape }
    }

    /// Runs the recorded step once.
    pub fn run(self) -> Outcome<T> {
        let executable = Executable::new(self.tape.finish(), &self.device, self.parameter_bytes);
        let mut device = self.device;
        device.allocate(executable.bytes()).expect("memory for a small step");
        let mut write = |span: Span, values: HostValues<'_>| {
            device.write(span, values).expect("a span inside memory");
        };
        // What a step overwrites must not matter, and what it reads before writing must show.
        let everything = Span { offset: 0, elements: executable.bytes() / T::DTYPE.size(), dtype: T::DTYPE };
        write(everything, HostValues::F64(&vec![f64::NAN; everything.elements]));
        for (span, values) in &self.parameters {
            write(*span, HostValues::F64(values));
        }
        for (buffer, values) in &self.inputs {
            write(executable.span(*buffer), HostValues::F64(values));
        }
        for (buffer, values) in &self.labels {
            write(executable.span(*buffer), HostValues::I32(values));
        }
        executable.run(&mut device).expect("the step runs");
        Outcome { device, executable }
    }

    /// Walks back from `y` with the case's `dy`, runs, and compares `y`, the gradients of `inputs` and `parameters`
    /// and the `moved` statistics with the tensors of the given names.
    pub fn check(
        mut self,
        case: &Case<'_>,
        y: Var,
        inputs: &[(&str, Var)],
        parameters: &[(&str, Parameter)],
        moved: &[(&str, Parameter)],
    ) {
        let kept = self.tape.keep(y);
        let dy = self.gradient(y, case.get("dy"));
        let vars: Vec<Var> = inputs.iter().map(|&(_, var)| var).collect();
        let gradients = self.tape.backward_from(y, dy, &vars);
        let outcome = self.run();
        outcome.compare(case, "y", outcome.span(kept));
        for ((name, _), gradient) in inputs.iter().zip(gradients) {
            let gradient = gradient.unwrap_or_else(|| panic!("{}: no gradient reached {name}", case.name));
            outcome.compare(case, name, outcome.span(gradient));
        }
        for (name, parameter) in parameters {
            outcome.compare(case, name, parameter.gradient.expect("made with a gradient"));
        }
        for (name, parameter) in moved {
            outcome.compare(case, name, parameter.value);
        }
    }
}

impl<T: Element> Outcome<T> {
    /// What rounding may do to one operation.
    const TOLERANCE: f64 = match T::DTYPE {
        DType::F64 => 1e-10,
        _ => 1e-5,
    };

    pub fn span(&self, buffer: BufferId) -> Span {
        self.executable.span(buffer)
    }

    pub fn read(&self, span: Span) -> Vec<f64> {
        let mut values = vec![0.0; span.elements];
        self.device.read_f64(span, &mut values).expect("a span inside memory");
        values
    }

    /// Compares a span with a tensor of the case.
    pub fn compare(&self, case: &Case<'_>, name: &str, span: Span) {
        let expected = case.channels_last(name);
        assert_close(&format!("{}.{name}", case.name), &self.read(span), &expected.values, Self::TOLERANCE);
    }

    /// Compares the mean of the losses of samples with `loss` of the case.
    pub fn compare_loss(&self, case: &Case<'_>, per_sample: BufferId) {
        let losses = self.read(self.span(per_sample));
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let expected = &case.get("loss").values;
        assert_close(&format!("{}.loss", case.name), &[mean], expected, Self::TOLERANCE);
    }
}
