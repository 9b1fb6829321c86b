// A product of few rows with a weight: activation(norm(rows) W^T + bias), for 1 to ROWS rows.
//
// Bound by reading the weight once. A block takes UNITS times 16 rows of it; PRODUCER_WARPS bring
// them into a ring of STAGES in shared memory, and begin before the kernel before this one has
// ended: the weight does not depend on it. So a multiprocessor should hold one block of this
// kernel and one of the next; that it never holds two of one is seen to by their sizes: one has
// more than half of the shared memory, the next, of 1,024 threads, more than half of the registers.
// The order of every sum is `triton_kernel.py`'s: SEGMENTS accumulators, k ascending by 16, then
// segment 0 plus segment 1, bias, activation, residual.

#include "device.cuh"
#include "rows.cuh"

#define SEGMENT (IN / SEGMENTS)
#define CHUNKS (SEGMENT / CHUNK)
// Rows in shared memory lie 16 bytes apart from a multiple of 128, or their reads would collide.
#define PIECE_BYTES (CHUNK * 2 + 16)
#define TILE_COLUMNS (UNITS * 16)
#define TILES (OUT / TILE_COLUMNS)
#define WEIGHT_BYTES (TILE_COLUMNS * SEGMENTS * PIECE_BYTES)
// WHOLE: the rows lie whole behind the ring, with NORM normalized; else in the ring, by chunks.
#define ROW_BYTES (IN * 2 + 16)
#define STAGE_BYTES (WEIGHT_BYTES + (WHOLE ? 0 : ROWS * SEGMENTS * PIECE_BYTES))
#define BARRIER_BYTES 256
#define CONSUMER_WARPS (UNITS * SEGMENTS)
#define PRODUCERS (32 * PRODUCER_WARPS)
#define ROW_TILES ((ROWS + 7) / 8)
#define OUTPUTS (ROW_TILES * 4)

struct Ring {
  u64 *full, *empty;
  unsigned char* stages;
};

// Starts the copy of `count` pieces of CHUNK, piece p from source(p), and arrives with its end.
template <class Source>
__device__ inline void bring(unsigned char* target, int count, u64* barrier, Source source) {
  const int producer = threadIdx.x - (THREADS - PRODUCERS);
  for (int index = producer; index < count * (CHUNK / 8); index += PRODUCERS) {
    const int piece = index / (CHUNK / 8), offset = index % (CHUNK / 8);
    copy_to_shared(target + piece * PIECE_BYTES + offset * 16, source(piece) + offset * 8);
  }
  arrive_with_copies(barrier);
}

struct Producer {
  Ring ring;
  const Half *weight, *rows;
  int row_count, first_tile;

  // The stage, tile and chunk of a step: the ring is filled and emptied in this order.
  __device__ void bring_weight(int step) const {
    const int tile = first_tile + step / CHUNKS * gridDim.x, chunk = step % CHUNKS;
    const Half* first = weight + (long long)tile * TILE_COLUMNS * IN + chunk * CHUNK;
    bring(ring.stages + step % STAGES * STAGE_BYTES, TILE_COLUMNS * SEGMENTS,
          ring.full + step % STAGES, [&](int piece) {
            return first + (piece % TILE_COLUMNS) * IN + piece / TILE_COLUMNS * SEGMENT;
          });
  }

  __device__ void bring_rows(int step) const {
    const Half* first = rows + step % CHUNKS * CHUNK;
    bring(ring.stages + step % STAGES * STAGE_BYTES + WEIGHT_BYTES, ROWS * SEGMENTS,
          ring.full + step % STAGES, [&](int piece) {
            // Places past the last row hold it again; nobody takes their sums.
            return first + min(piece % ROWS, row_count - 1) * IN + piece / ROWS * SEGMENT;
          });
  }

  __device__ void refill(int step_count) const {
    for (int step = STAGES; step < step_count; step++) {
      wait_for_phase(ring.empty + step % STAGES, step / STAGES % 2 ^ 1);
      bring_weight(step);
      if (!WHOLE) bring_rows(step);
    }
  }
};

// Adds one chunk to a warp's sums: 16 columns from `weight_row` on, all rows from `first_row` on.
__device__ inline void add_chunk(float (&sums)[ROW_TILES][4], u32 weight_row,
                                 const u32 (&first_row)[ROW_TILES]) {
#pragma unroll
  for (int k = 0; k < CHUNK; k += 32) {
    u32 left[2][4], right[4];
    load_matrices(left[0], weight_row + k * 2);
    load_matrices(left[1], weight_row + k * 2 + 32);
#pragma unroll
    for (int tile = 0; tile < ROW_TILES; tile++) {
      load_matrices(right, first_row[tile] + k * 2);
      multiply(sums[tile], left[0], right[0], right[1]);
      multiply(sums[tile], left[1], right[2], right[3]);
    }
  }
}

__device__ inline float activate(float x) {
  if (!GELU_TANH) return x;
  // As in `triton_kernel.py`, down to the instruction.
  const float inner = __fmaf_rn(__fmul_rn(x, __fmul_rn(x, 0.044715f)), x, x);
  float power, result;
  const float exponent = __fmul_rn(__fmul_rn(inner, -1.5957691216057308f), 1.4426950408889634f);
  asm("ex2.approx.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  asm("div.full.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(__fadd_rn(power, 1.0f)));
  return result;
}

struct Target {
  const float* bias;
  void* out;
  int row_count;
  Half *keys, *values;
  const long long* places;
};

// A thread's outputs of a tile: output `index` is of this row and column.
__device__ inline int row_of(int index) {
  return index / 4 * 8 + threadIdx.x % 4 * 2 + index % 2;
}
__device__ inline int column_of(int tile, int index) {
  const int unit = threadIdx.x / 32 / SEGMENTS;
  return tile * TILE_COLUMNS + unit * 16 + threadIdx.x % 32 / 4 + index % 4 / 2 * 8;
}

// What is added to a thread's sums: read while the sums are made.
struct Addends {
  float bias[2], residual[OUTPUTS];

  __device__ void take(const Target& target, int tile) {
#pragma unroll
    for (int half = 0; half < 2 && HAS_BIAS; half++)
      bias[half] = target.bias[column_of(tile, half * 2)];
#pragma unroll
    for (int index = 0; index < OUTPUTS && RESIDUAL; index++)
      if (row_of(index) < target.row_count)
        residual[index] =
            ((const float*)target.out)[(long long)row_of(index) * OUT + column_of(tile, index)];
  }
};

__device__ inline void store(const Target& target, int row, int column, float value) {
  const long long place = (long long)row * (OUT - 2 * KV_SIZE) + column;
  const int cache_column = column - (OUT - 2 * KV_SIZE);
  if (FLOAT_OUT) {
    ((float*)target.out)[place] = value;
  } else if (KV_SIZE == 0 || cache_column < 0) {
    ((Half*)target.out)[place] = to_half(value);
  } else if (target.places[row] >= 0) {
    Half* cache = cache_column < KV_SIZE ? target.keys : target.values - KV_SIZE;
    cache[target.places[row] * KV_SIZE + cache_column] = to_half(value);
  }
}

__device__ inline void consume(const Ring& ring, const unsigned char* whole_rows, float* exchange,
                               const Target& target) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int unit = warp / SEGMENTS, segment = warp % SEGMENTS;
  const u32 weight_offset =
      (segment * TILE_COLUMNS + unit * 16 + lane % 16) * PIECE_BYTES + lane / 16 * 16;
  int step = 0;
  for (int tile = blockIdx.x; tile < TILES; tile += gridDim.x) {
    float sums[ROW_TILES][4] = {};
    Addends addends;
    addends.take(target, tile);
    for (int chunk = 0; chunk < CHUNKS; chunk++, step++) {
      const int stage = step % STAGES;
      const u32 stage_address = shared_address(ring.stages + stage * STAGE_BYTES);
      u32 first_row[ROW_TILES];
#pragma unroll
      for (int part = 0; part < ROW_TILES; part++) {
        // Places past the last row read it again; nobody takes their sums.
        const int row = min(part * 8 + lane % 8, ROWS - 1);
        first_row[part] =
            lane / 8 * 16 +
            (WHOLE ? shared_address(whole_rows) + row * ROW_BYTES + (segment * SEGMENT + chunk * CHUNK) * 2
                   : stage_address + WEIGHT_BYTES + (segment * ROWS + row) * PIECE_BYTES);
      }
      wait_for_phase(ring.full + stage, step / STAGES % 2);
      add_chunk(sums, stage_address + weight_offset, first_row);
      __syncwarp();
      if (lane == 0) arrive(ring.empty + stage);
    }
    if (SEGMENTS == 2) {
      float* place = exchange + unit * OUTPUTS * 32 + lane;
      for (int index = 0; index < OUTPUTS && segment == 1; index++)
        place[index * 32] = sums[index / 4][index % 4];
      asm volatile("bar.sync %0, 64;" ::"r"(2 + unit) : "memory");
      if (segment == 1) return;
      for (int index = 0; index < OUTPUTS; index++)
        sums[index / 4][index % 4] = __fadd_rn(sums[index / 4][index % 4], place[index * 32]);
    }
#pragma unroll
    for (int index = 0; index < OUTPUTS; index++) {
      if (row_of(index) >= target.row_count) continue;
      float value = sums[index / 4][index % 4];
      if (HAS_BIAS) value = __fadd_rn(value, addends.bias[index % 4 / 2]);
      value = activate(value);
      if (RESIDUAL) value = __fadd_rn(value, addends.residual[index]);
      store(target, row_of(index), column_of(tile, index), value);
    }
  }
}

// Brings all rows to `whole_rows` before any is used, normalized on the way with NORM.
__device__ inline void take_whole_rows(const void* rows, int row_count, const NormShare& share,
                                       float epsilon, unsigned char* whole_rows, float* partial) {
  if (NORM) {
    normalize_rows<ROWS>((const float*)rows, row_count, share, epsilon, partial,
                         [&](int row, int column, float4 normal) {
                           *(uint2*)(whole_rows + row * ROW_BYTES + column * 2) = pack_four(normal);
                         });
    return;
  }
  for (int piece = threadIdx.x; piece < row_count * (IN / 8); piece += THREADS)
    *(uint4*)(whole_rows + piece / (IN / 8) * ROW_BYTES + piece % (IN / 8) * 16) =
        ((const uint4*)rows)[piece];
}

// rows: float32 [row_count, IN] with NORM, else Half; out: float32 with FLOAT_OUT, else Half,
// [row_count, OUT], without the last 2 * KV_SIZE columns, which go to the cache.
extern "C" __global__ void __maxnreg__(REGISTERS)
few_rows(const void* rows, const Half* weight, const float* bias, void* out, int row_count,
         const float* norm_weight, const float* norm_bias, float epsilon, Half* keys, Half* values,
         const long long* places) {
  extern __shared__ __align__(128) unsigned char shared[];
  const Ring ring = {(u64*)shared, (u64*)shared + STAGES, shared + BARRIER_BYTES};
  unsigned char* whole_rows = ring.stages + STAGES * STAGE_BYTES;
  float* partial = (float*)(whole_rows + (WHOLE ? ROWS * ROW_BYTES : 0));
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      // A producer arrives for the weight, and for the rows if they come by the ring.
      init_barrier(ring.full + stage, PRODUCERS * (WHOLE ? 1 : 2));
      init_barrier(ring.empty + stage, CONSUMER_WARPS);
    }
  }
  __syncthreads();
  let_next_start();
  const int warp = threadIdx.x / 32;
  const bool produces = warp >= (THREADS - PRODUCERS) / 32;
  const int tile_count = (TILES - 1 - blockIdx.x) / gridDim.x + 1;
  const int step_count = tile_count * CHUNKS, early_count = min(STAGES, step_count);
  const Producer producer = {ring, weight, (const Half*)rows, row_count, (int)blockIdx.x};
  for (int step = 0; step < early_count && produces; step++) producer.bring_weight(step);
  NormShare share;
  if (NORM) share.take(norm_weight, norm_bias);
  wait_for_last();
  if (WHOLE) {
    take_whole_rows(rows, row_count, share, epsilon, whole_rows, partial);
    __syncthreads();
  }
  for (int step = 0; step < early_count && produces && !WHOLE; step++) producer.bring_rows(step);
  if (produces) producer.refill(step_count);
  if (warp < CONSUMER_WARPS)
    consume(ring, whole_rows, partial, {bias, out, row_count, keys, values, places});
}
