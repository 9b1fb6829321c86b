// Layer norm of float32 rows by the 256 threads of 8 warps, its sums in one written order.
//
// A thread adds its values in ascending order, four neighbours at a time; a warp adds its threads'
// sums by halves; the 8 warps' sums are added one after the other. The order is that of one row,
// however many are done at once. Wants IN, a multiple of 4. Built without fused multiply-adds but
// for those written as such.

#define WORKER_WARPS 8
#define WORKERS (32 * WORKER_WARPS)
#define QUADS_PER_THREAD ((IN / 4 + WORKERS - 1) / WORKERS)

__device__ inline void wait_for_workers() { asm volatile("bar.sync 1, 256;" ::: "memory"); }

// The sum of all workers' `value` for each of ROW_COUNT rows. `partial` float [ROW_COUNT, 8].
template <int ROW_COUNT>
__device__ inline void add_workers(float (&value)[ROW_COUNT], float* partial) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int row = 0; row < ROW_COUNT; row++) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
      value[row] = __fadd_rn(value[row], __shfl_xor_sync(0xffffffffu, value[row], distance));
    if (lane == 0) partial[row * WORKER_WARPS + warp] = value[row];
  }
  wait_for_workers();
#pragma unroll
  for (int row = 0; row < ROW_COUNT; row++) {
    value[row] = partial[row * WORKER_WARPS];
#pragma unroll
    for (int other = 1; other < WORKER_WARPS; other++)
      value[row] = __fadd_rn(value[row], partial[row * WORKER_WARPS + other]);
  }
}

// A thread's share of a norm's weight and bias, which can be taken before the rows are there.
struct NormShare {
  float4 gamma[QUADS_PER_THREAD], beta[QUADS_PER_THREAD];

  __device__ void take(const float* weight, const float* bias) {
#pragma unroll
    for (int index = 0; index < QUADS_PER_THREAD; index++) {
      const int column = 4 * (threadIdx.x + index * WORKERS);
      if (column >= IN) continue;
      gamma[index] = *(const float4*)(weight + column);
      beta[index] = *(const float4*)(bias + column);
    }
  }
};

// Normalizes rows 0 to row_count - 1 of `hidden` [row_count, IN] and hands each four neighbours to
// `store(row, column, normal)`. `partial` float [2 * ROW_COUNT, 8] in shared memory.
template <int ROW_COUNT, class Store>
__device__ inline void normalize_rows(const float* hidden, int row_count, const NormShare& share,
                                      float epsilon, float* partial, Store store) {
  float4 value[ROW_COUNT][QUADS_PER_THREAD];
  float mean[ROW_COUNT], scale[ROW_COUNT];
#pragma unroll
  for (int row = 0; row < ROW_COUNT; row++) {
    mean[row] = 0.0f;
#pragma unroll
    for (int index = 0; index < QUADS_PER_THREAD; index++) {
      const int column = 4 * (threadIdx.x + index * WORKERS);
      const bool inside = row < row_count && column < IN;
      value[row][index] = inside ? *(const float4*)(hidden + (long long)row * IN + column)
                                 : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }
#pragma unroll
  for (int row = 0; row < ROW_COUNT; row++)
#pragma unroll
    for (int index = 0; index < QUADS_PER_THREAD; index++) {
      const float4 four = value[row][index];
      const float sum = __fadd_rn(__fadd_rn(__fadd_rn(four.x, four.y), four.z), four.w);
      mean[row] = __fadd_rn(mean[row], sum);
    }
  add_workers<ROW_COUNT>(mean, partial);
#pragma unroll
  for (int row = 0; row < ROW_COUNT; row++) {
    mean[row] = __fdiv_rn(mean[row], (float)IN);
    scale[row] = 0.0f;
#pragma unroll
    for (int index = 0; index < QUADS_PER_THREAD; index++) {
      const float4 four = value[row][index];
      const bool inside = 4 * (threadIdx.x + index * WORKERS) < IN;
      const float x = __fsub_rn(four.x, mean[row]), y = __fsub_rn(four.y, mean[row]);
      const float z = __fsub_rn(four.z, mean[row]), w = __fsub_rn(four.w, mean[row]);
      float sum = __fmul_rn(x, x);
      sum = __fmaf_rn(y, y, sum);
      sum = __fmaf_rn(z, z, sum);
      sum = __fmaf_rn(w, w, sum);
      scale[row] = __fadd_rn(scale[row], inside ? sum : 0.0f);
    }
  }
  add_workers<ROW_COUNT>(scale, partial + ROW_COUNT * WORKER_WARPS);
#pragma unroll
  for (int row = 0; row < ROW_COUNT; row++)
    scale[row] = rsqrtf(__fadd_rn(__fdiv_rn(scale[row], (float)IN), epsilon));
#pragma unroll
  for (int index = 0; index < QUADS_PER_THREAD; index++) {
    const int column = 4 * (threadIdx.x + index * WORKERS);
    if (column >= IN) continue;
    const float4 gamma = share.gamma[index], beta = share.beta[index];
#pragma unroll
    for (int row = 0; row < ROW_COUNT; row++) {
      if (row >= row_count) continue;
      const float4 four = value[row][index];
      float4 normal;
      normal.x = __fmaf_rn(__fmul_rn(__fsub_rn(four.x, mean[row]), scale[row]), gamma.x, beta.x);
      normal.y = __fmaf_rn(__fmul_rn(__fsub_rn(four.y, mean[row]), scale[row]), gamma.y, beta.y);
      normal.z = __fmaf_rn(__fmul_rn(__fsub_rn(four.z, mean[row]), scale[row]), gamma.z, beta.z);
      normal.w = __fmaf_rn(__fmul_rn(__fsub_rn(four.w, mean[row]), scale[row]), gamma.w, beta.w);
      store(row, column, normal);
    }
  }
}
