// Layer norm of whole rows, a block a row: what `few_rows.cu` does on the way, for more rows.

#include "device.cuh"
#include "rows.cuh"

// hidden float32 [*, IN]; `rows` int32 [blocks] names the row each block takes, with GATHER.
// out [blocks, IN].
extern "C" __global__ void __launch_bounds__(WORKERS)
norm_rows(const float* hidden, const int* rows, const float* weight, const float* bias,
          float epsilon, Half* out) {
  __shared__ float partial[2 * WORKER_WARPS];
  let_next_start();
  NormShare share;
  share.take(weight, bias);
  wait_for_last();
  const int row = GATHER ? max(rows[blockIdx.x], 0) : blockIdx.x;
  Half* out_row = out + (long long)blockIdx.x * IN;
  normalize_rows<1>(hidden + (long long)row * IN, 1, share, epsilon, partial,
                    [&](int, int column, float4 normal) {
                      *(uint2*)(out_row + column) = pack_four(normal);
                    });
}
