// + - * / of tensors, without the thousand functions that ATen's header brings along unless it is told not to.
#pragma once

#ifndef AT_PER_OPERATOR_HEADERS
#define AT_PER_OPERATOR_HEADERS
#include <ATen/TensorOperators.h>
#undef AT_PER_OPERATOR_HEADERS
#else
#include <ATen/TensorOperators.h>
#endif
