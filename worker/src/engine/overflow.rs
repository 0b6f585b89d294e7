//! Arithmetic that fails where its type cannot hold the result, in place of the engine's own, which goes on with
//! another number: `+`, `-`, `*` and the sign before whole numbers and the widest decimals. (Smaller decimals become
//! wider with each operation; a division fails by itself; floating-point numbers become infinite, as IEEE 754 has it.)

use std::{any::Any, fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, Datum},
    compute::kernels::numeric::{add, mul, neg, sub},
    datatypes::{
        DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
        Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef,
    },
    error::ArrowError,
};
use datafusion::{
    common::{
        DFSchema, DataFusionError, ExprSchema, Result, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable, GroupingSet, LogicalPlan, Operator, ReturnFieldArgs,
        ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, expr::ScalarFunction,
        type_coercion::binary::BinaryTypeCoercer, utils::merge_schema,
    },
    optimizer::{AnalyzerRule, utils::NamePreserver},
    physical_expr_common::datum::apply,
};

use crate::type_names::type_name;

/// Puts the functions below in the places of operators: behind the engine's own rules, when all types are known (in a
/// chain of functions it would ask for each again and again), and before anything is calculated.
#[derive(Debug)]
pub(super) struct CheckArithmetic;

impl AnalyzerRule for CheckArithmetic {
    fn name(&self) -> &str {
        "check_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(checked_plan).map(|plan| plan.data)
    }
}

fn checked_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    let named = |expr: Expr| -> Result<Transformed<Expr>> {
        let name = names.save(&expr);
        let expr = check_arithmetic(expr, &schema)?;
        Ok(expr.update_data(|expr| name.restore(expr)))
    };
    plan.map_expressions(|expr| match expr {
        // The columns that they give have the names of their parts.
        Expr::GroupingSet(set) => {
            let each = |parts: Vec<Expr>| -> Result<Vec<Expr>> {
                parts
                    .into_iter()
                    .map(|part| named(part).map(|part| part.data))
                    .collect()
            };
            Ok(Transformed::yes(Expr::GroupingSet(match set {
                GroupingSet::Rollup(parts) => GroupingSet::Rollup(each(parts)?),
                GroupingSet::Cube(parts) => GroupingSet::Cube(each(parts)?),
                GroupingSet::GroupingSets(sets) => {
                    GroupingSet::GroupingSets(sets.into_iter().map(each).collect::<Result<_>>()?)
                }
            })))
        }
        expr => named(expr),
    })
}

/// The expression, whose types are coerced, with checks.
pub(super) fn check_arithmetic(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        Ok(match checked(expr, schema) {
            Ok(checked) => Transformed::yes(checked),
            Err(as_it_was) => Transformed::no(as_it_was),
        })
    })
}

/// One operator with a check; as it was where its type needs none.
fn checked(expr: Expr, schema: &dyn ExprSchema) -> std::result::Result<Expr, Expr> {
    let is_operator = match &expr {
        Expr::BinaryExpr(binary) => Operation::of(binary.op).is_some(),
        Expr::Negative(_) => true,
        _ => false,
    };
    let ty = match is_operator {
        true => type_of(&expr, schema).ok().filter(may_overflow),
        false => None,
    };
    let Some(ty) = ty else { return Err(expr) };
    // The days between two dates are a whole number too, and no difference of whole numbers.
    let is_time = |side: &Expr| type_of(side, schema).is_ok_and(|ty| ty.is_temporal());
    let (operation, args) = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match Operation::of(op) {
            Some(operation) if !is_time(&left) && !is_time(&right) => (operation, vec![*left, *right]),
            _ => return Err(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        },
        Expr::Negative(value) => (Operation::Negate, vec![*value]),
        other => return Err(other),
    };
    let function = Arc::new(ScalarUDF::from(Checked {
        operation,
        ty,
        signature: Signature::variadic_any(Volatility::Immutable),
    }));
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
}

/// The expression with operators in the places of their functions, for people.
pub(super) fn as_written(expr: Expr) -> Expr {
    let operator = |expr: Expr| {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
            return Ok(Transformed::no(expr));
        };
        let function: &dyn Any = func.inner().as_ref();
        let operation = function.downcast_ref::<Checked>().map(|checked| checked.operation);
        Ok(match (operation.map(Operation::operator), args.as_slice()) {
            (Some(Some(operator)), [left, right]) => {
                let (left, right) = (Box::new(left.clone()), Box::new(right.clone()));
                Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(left, operator, right)))
            }
            (Some(None), [value]) => Transformed::yes(Expr::Negative(Box::new(value.clone()))),
            _ => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
        })
    };
    // Nothing in it fails.
    expr.clone().transform_up(operator).map_or(expr, |made| made.data)
}

/// The engine's own way to the type of a function asks for all of its arguments, with their names.
fn type_of(expr: &Expr, schema: &dyn ExprSchema) -> Result<DataType> {
    match expr {
        Expr::ScalarFunction(function) => {
            let function: &dyn Any = function.func.inner().as_ref();
            match function.downcast_ref::<Checked>() {
                Some(checked) => Ok(checked.ty.clone()),
                None => expr.get_type(schema),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            BinaryTypeCoercer::new(&type_of(left, schema)?, op, &type_of(right, schema)?).get_result_type()
        }
        Expr::Negative(value) => type_of(value, schema),
        other => other.get_type(schema),
    }
}

fn may_overflow(ty: &DataType) -> bool {
    let widest = match *ty {
        DataType::Decimal32(precision, _) => precision == DECIMAL32_MAX_PRECISION,
        DataType::Decimal64(precision, _) => precision == DECIMAL64_MAX_PRECISION,
        DataType::Decimal128(precision, _) => precision == DECIMAL128_MAX_PRECISION,
        DataType::Decimal256(precision, _) => precision == DECIMAL256_MAX_PRECISION,
        _ => false,
    };
    widest || ty.is_integer()
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

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    /// Of the result.
    ty: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.ty.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.ty.clone(), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ty = self.ty.clone();
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

/// The value, where each number has as many digits as its type allows: its bits hold a few more.
fn within(value: ColumnarValue, ty: &DataType) -> Result<ColumnarValue> {
    fn check<T: DecimalType>(array: &dyn Array, precision: u8) -> std::result::Result<(), ArrowError> {
        array.as_primitive::<T>().validate_decimal_precision(precision)
    }
    if !ty.is_decimal() {
        return Ok(value);
    }
    let array = match &value {
        ColumnarValue::Array(array) => array.clone(),
        ColumnarValue::Scalar(scalar) => scalar.to_array()?,
    };
    let checked = match *ty {
        DataType::Decimal32(precision, _) => check::<Decimal32Type>(&array, precision),
        DataType::Decimal64(precision, _) => check::<Decimal64Type>(&array, precision),
        DataType::Decimal128(precision, _) => check::<Decimal128Type>(&array, precision),
        DataType::Decimal256(precision, _) => check::<Decimal256Type>(&array, precision),
        _ => Ok(()),
    };
    match checked {
        Ok(()) => Ok(value),
        Err(error) => Err(does_not_fit(&error.to_string(), ty)),
    }
}

/// `what`: the numbers and the operation, or the engine's words.
fn does_not_fit(what: &str, ty: &DataType) -> DataFusionError {
    let what = what.trim_start_matches("Overflow happened on: ");
    overflow(format_args!("the result of {what}"), ty)
}

/// The error of a result that its type cannot hold.
pub(super) fn overflow(what: fmt::Arguments<'_>, ty: &DataType) -> DataFusionError {
    let name = type_name(ty);
    DataFusionError::Execution(format!("{what} does not fit {name}; cast to a wider type first"))
}
