//! Arithmetic that fails where its type cannot hold the result, in place of the engine's own, which goes on with
//! another number: `+`, `-`, `*` and the sign before whole numbers and the widest decimals. (Smaller decimals become
//! wider with each operation; a division fails by itself; floating-point numbers become infinite, as IEEE 754 has it.)

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{ArrayRef, AsArray, Datum},
    compute::kernels::numeric::{add, mul, neg, sub},
    datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef},
    error::ArrowError,
};
use datafusion::{
    common::{
        DFSchema, DataFusionError, ExprSchema, Result, ScalarValue, config::ConfigOptions, tree_node::Transformed,
    },
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility, expr::ScalarFunction, expr_rewriter::FunctionRewrite,
        type_coercion::binary::BinaryTypeCoercer,
    },
    physical_expr_common::datum::apply,
};

/// Puts the functions below in the places of operators.
#[derive(Debug)]
pub(super) struct CheckArithmetic;

impl FunctionRewrite for CheckArithmetic {
    fn name(&self) -> &str {
        "check_arithmetic"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match checked(expr, schema) {
            Ok(checked) => Transformed::yes(checked),
            Err(as_it_was) => Transformed::no(as_it_was),
        })
    }
}

/// The expression with a check; as it was where its type needs none, or is not known yet.
fn checked(expr: Expr, schema: &dyn ExprSchema) -> std::result::Result<Expr, Expr> {
    if !expr.get_type(schema).is_ok_and(|ty| may_overflow(&ty)) {
        return Err(expr);
    }
    let (operation, args) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match Operation::of(op) {
            Some(operation) => (operation, vec![*left, *right]),
            None => return Err(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        },
        Expr::Negative(value) => (Operation::Negate, vec![*value]),
        other => return Err(other),
    };
    let function = FUNCTIONS[operation as usize].clone();
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
}

fn may_overflow(ty: &DataType) -> bool {
    ty.is_integer() || matches!(ty, DataType::Decimal128(DECIMAL128_MAX_PRECISION, _))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Negate,
}

impl Operation {
    fn of(operator: Operator) -> Option<Operation> {
        match operator {
            Operator::Plus => Some(Operation::Add),
            Operator::Minus => Some(Operation::Subtract),
            Operator::Multiply => Some(Operation::Multiply),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
            Operation::Negate => "checked_negate",
        }
    }

    /// `None` for one that has a single side.
    fn operator(self) -> Option<Operator> {
        match self {
            Operation::Add => Some(Operator::Plus),
            Operation::Subtract => Some(Operator::Minus),
            Operation::Multiply => Some(Operator::Multiply),
            Operation::Negate => None,
        }
    }
}

/// In the order of [`Operation`].
static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 4]> = LazyLock::new(|| {
    [
        Operation::Add,
        Operation::Subtract,
        Operation::Multiply,
        Operation::Negate,
    ]
    .map(|operation| {
        Arc::new(ScalarUDF::from(Checked {
            operation,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    })
});

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        match (self.operation.operator(), args) {
            (Some(operator), [left, right]) => {
                let (left, right) = BinaryTypeCoercer::new(left, &operator, right).get_input_types()?;
                Ok(vec![left, right])
            }
            _ => Ok(args.to_vec()),
        }
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match (self.operation.operator(), args) {
            (Some(operator), [left, right]) => BinaryTypeCoercer::new(left, &operator, right).get_result_type(),
            _ => args
                .first()
                .cloned()
                .ok_or_else(|| DataFusionError::Plan(format!("{} of nothing", self.name()))),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ty = args.return_type().clone();
        let told = |error: DataFusionError| match error.find_root() {
            DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
                ArrowError::ArithmeticOverflow(message) => does_not_fit(message, &ty),
                _ => error,
            },
            _ => error,
        };
        let value = match args.args.as_slice() {
            [left, right] => {
                let kernel = match self.operation {
                    Operation::Add => add,
                    Operation::Subtract => sub,
                    Operation::Multiply | Operation::Negate => mul,
                };
                apply(left, right, kernel).map_err(told)?
            }
            [value] => negated(value).map_err(told)?,
            _ => return Err(DataFusionError::Internal(format!("{} of no values", self.name()))),
        };
        within(value, &ty)
    }
}

fn negated(value: &ColumnarValue) -> Result<ColumnarValue> {
    Ok(match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(neg(array.as_ref())?),
        ColumnarValue::Scalar(scalar) => {
            let array = neg(scalar.to_scalar()?.get().0)?;
            ColumnarValue::Scalar(ScalarValue::try_from_array(array.as_ref(), 0)?)
        }
    })
}

/// The value, where each number has as many digits as its type allows: 128 bits hold a few more.
fn within(value: ColumnarValue, ty: &DataType) -> Result<ColumnarValue> {
    let &DataType::Decimal128(precision, _) = ty else {
        return Ok(value);
    };
    let check = |array: &ArrayRef| {
        array
            .as_primitive::<Decimal128Type>()
            .validate_decimal_precision(precision)
            .map_err(|error| does_not_fit(&error.to_string(), ty))
    };
    match &value {
        ColumnarValue::Array(array) => check(array)?,
        ColumnarValue::Scalar(scalar) => check(&scalar.to_array()?)?,
    }
    Ok(value)
}

/// `what`: the numbers and the operation, or the engine's words.
fn does_not_fit(what: &str, ty: &DataType) -> DataFusionError {
    let what = what.trim_start_matches("Overflow happened on: ");
    overflow(format_args!("the result of {what}"), ty)
}

/// The error of a result that its type cannot hold.
pub(super) fn overflow(what: fmt::Arguments<'_>, ty: &DataType) -> DataFusionError {
    let name = ty.to_string().to_lowercase().replace("decimal128", "decimal");
    DataFusionError::Execution(format!("{what} does not fit {name}; cast to a wider type first"))
}
