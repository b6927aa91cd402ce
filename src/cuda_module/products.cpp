#include "products.hpp"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

namespace outrider::cuda {
namespace {

constexpr std::size_t kMostWorkspace = std::size_t{8} << 20;

template <typename T, cublasStatus_t (*End)(T)>
struct Ended {
    using pointer = T;
    void operator()(T it) const { (void)End(it); }
};
using Layout =
    std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Ended<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>>;
using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Ended<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy>>;
using Preference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                                   Ended<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy>>;

cudaDataType_t type_of(bool bf16) { return bf16 ? CUDA_R_16BF : CUDA_R_32F; }

Layout layout(bool bf16, std::int64_t rows, std::int64_t columns) {
    cublasLtMatrixLayout_t made = nullptr;
    (void)cublasLtMatrixLayoutCreate(&made, type_of(bf16), static_cast<std::uint64_t>(rows),
                                     static_cast<std::uint64_t>(columns), rows);
    return Layout(made);
}

/// y^T = alpha rows x^T + beta y^T in cuBLAS's order of columns: every matrix of ours is its transpose there.
struct Described {
    Operation operation;
    Layout a, b, y;

    Described(const Product& of, std::int64_t n)
        : a(layout(of.bf16, of.in, of.out)),
          b(layout(of.bf16, of.in, n)),
          y(layout(of.bf16 && !of.y_in_f32, of.out, n)) {
        cublasLtMatmulDesc_t made = nullptr;
        (void)cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F);
        operation.reset(made);
        if (made == nullptr) return;
        const cublasOperation_t transposed = CUBLAS_OP_T;
        (void)cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
        if (of.bias == nullptr) return;
        const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        (void)cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
        (void)cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &of.bias, sizeof of.bias);
    }
    [[nodiscard]] bool whole() const { return operation && a && b && y; }
};

std::string said(cublasStatus_t status) { return cublasLtGetStatusString(status); }

/// The library's first choice for a whole tile, whatever the rows are that will come.
std::string choose(cublasLtHandle_t handle, const Product& of, cublasLtMatmulAlgo_t& algorithm,
                   std::size_t& workspace) {
    const Described tile(of, kProductRows);
    cublasLtMatmulPreference_t made = nullptr;
    if (!tile.whole() || cublasLtMatmulPreferenceCreate(&made) != CUBLAS_STATUS_SUCCESS) return "out of memory";
    const Preference preference(made);
    (void)cublasLtMatmulPreferenceSetAttribute(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kMostWorkspace,
                                               sizeof kMostWorkspace);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, tile.operation.get(), tile.a.get(), tile.b.get(), tile.y.get(), tile.y.get(), made, 1, &found, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) return said(status);
    algorithm = found.algo, workspace = found.workspaceSize;
    return {};
}

}  // namespace

std::string Products::multiply(const Product& of) {
    const int device = c10::cuda::current_device();
    const Key key{device, of.in, of.out, of.bf16, of.y_in_f32, of.bias != nullptr};
    cublasLtHandle_t handle = nullptr;
    Chosen chosen;
    {
        const std::lock_guard lock(mutex_);
        cublasLtHandle_t& of_device = handles_[device];  // kept: the module is never closed
        if (of_device == nullptr && cublasLtCreate(&of_device) != CUBLAS_STATUS_SUCCESS)
            return "cuBLASLt does not start";
        handle = of_device;
        const auto found = chosen_.find(key);
        if (found != chosen_.end()) {
            chosen = found->second;
        } else {
            const std::string why = choose(handle, of, chosen.algorithm, chosen.workspace);
            if (!why.empty()) return why;
            chosen_.emplace(key, chosen);
        }
    }
    const Described described(of, of.n);
    if (!described.whole()) return "out of memory";
    // From the allocator of tensors, which knows streams and graphs.
    const c10::DataPtr workspace = c10::cuda::CUDACachingAllocator::get()->allocate(chosen.workspace);
    const cublasStatus_t status =
        cublasLtMatmul(handle, described.operation.get(), &of.alpha, of.rows, described.a.get(), of.x,
                       described.b.get(), &of.beta, of.y, described.y.get(), of.y, described.y.get(), &chosen.algorithm,
                       workspace.get(), chosen.workspace, c10::cuda::getCurrentCUDAStream().stream());
    return status == CUBLAS_STATUS_SUCCESS ? std::string() : said(status);
}

}  // namespace outrider::cuda
