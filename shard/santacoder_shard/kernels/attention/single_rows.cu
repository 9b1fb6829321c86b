// Attention of single rows, each the newest of a sequence of its own: a cluster of blocks a row.
//
// Splits of 64 keys go to the cluster's blocks in turn; then each block folds some of the heads over
// all splits, ascending. A block that is alone folds each split as it comes. The arithmetic is `triton_kernel.py`'s, to the bit. All but the newest key
// and value were written by steps before this one, so a block brings its first splits before the
// kernel before this one has ended: what it does after that is short, which is what a step of few
// rows takes. Rows are resolved as `embedding/triton_kernel.py` does, from what steps before left.

#include "device.cuh"

#define SPLIT 64
#define PAGE 16
#define HEADS (KV_HEADS * GROUP)
#define THREADS 128
#define PIECE_BYTES (HEAD * 2 + 16)
#define WEIGHT_BYTES (SPLIT * 2 + 16)
#define PAIRS (HEAD / 64)
// A block that is alone keeps no split.
#define SPLITS_KEPT (CLUSTER > 1 ? (SPLIT_LIMIT + CLUSTER - 1) / CLUSTER : 1)
#define HEADS_PER_BLOCK ((GROUP + CLUSTER - 1) / CLUSTER)
#define MASKED -1e30f

struct Rows {
  const int *slots, *tokens, *positions, *limits;
  const int *slot_positions, *slot_ended, *tables;
  int table_width;
};

struct Shared {
  unsigned char keys[BUFFERS][SPLIT * PIECE_BYTES], values[BUFFERS][SPLIT * PIECE_BYTES];
  unsigned char query[16 * PIECE_BYTES], weights[16 * WEIGHT_BYTES];
  float highest[4][16];
  float contexts[SPLITS_KEPT][16][HEAD];
  float2 moments[SPLITS_KEPT][16];
};

// What a thread has of a split, or of all splits so far: of heads lane / 4 and lane / 4 + 8 their
// highest scores and totals, and context[pair][tile][i], of head lane / 4 + i / 2 * 8 and dimension
// warp * (HEAD / 4) + 16 * pair + 8 * tile + lane % 4 * 2 + i % 2.
struct Part {
  float highest[2], total[2], context[PAIRS][2][4];
};

__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The newest position of a row's sequence, -1 for none; its table of blocks.
__device__ inline int newest_position(const Rows& rows, int row, const int** table) {
  const int slot = rows.slots[row];
  if (slot < 0) return -1;
  *table = rows.tables + (long long)slot * rows.table_width;
  const bool known = rows.tokens[row] >= 0;
  if (!known && rows.slot_ended[slot]) return -1;
  const int position = known ? rows.positions[row] : rows.slot_positions[slot];
  return position < rows.limits[row] ? position : -1;
}

struct Cache {
  const Half *keys, *values;
  const int* table;
  int newest;

  __device__ long long place(int key) const {
    const long long row = (long long)table[key / PAGE] * PAGE + key % PAGE;
    return (row * KV_HEADS + blockIdx.y) * HEAD;
  }

  // Starts copies of a split; keys past the newest become zero, and so add nothing.
  __device__ void bring(Shared& shared, int index, int split, bool is_early) const {
    for (int piece = threadIdx.x; piece < SPLIT * (HEAD / 8); piece += THREADS) {
      const int row = piece / (HEAD / 8), offset = piece % (HEAD / 8), key = split * SPLIT + row;
      if (is_early && key == newest) continue;
      const long long source = (key <= newest ? place(key) : 0) + offset * 8;
      const int target = row * PIECE_BYTES + offset * 16, bytes = key <= newest ? 16 : 0;
      copy_or_zero(shared.keys[index % BUFFERS] + target, keys + source, bytes);
      copy_or_zero(shared.values[index % BUFFERS] + target, values + source, bytes);
    }
  }

  __device__ void take_newest(Shared& shared, int index) const {
    const int offset = threadIdx.x;
    if (offset >= HEAD / 8) return;
    const int target = newest % SPLIT * PIECE_BYTES + offset * 16;
    const long long source = place(newest) + offset * 8;
    *(uint4*)(shared.keys[index] + target) = *(const uint4*)(keys + source);
    *(uint4*)(shared.values[index] + target) = *(const uint4*)(values + source);
  }
};

// Scores of this warp's 16 keys by 16 heads, in powers of two: sums[tile][i] is of head
// lane / 4 + i / 2 * 8 and key 16 * warp + 8 * tile + lane % 4 * 2 + i % 2.
__device__ inline void score(float (&scores)[2][4], Shared& shared, int buffer, int first_key,
                             int newest, float log2_scale) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 query = shared_address(shared.query) + lane % 16 * PIECE_BYTES + lane / 16 * 16;
  const int key_row = warp * 16 + lane / 16 * 8 + lane % 8;
  const u32 key = shared_address(shared.keys[buffer]) + key_row * PIECE_BYTES + lane / 8 % 2 * 16;
#pragma unroll
  for (int dimension = 0; dimension < HEAD; dimension += 16) {
    u32 left[4], right[4];
    load_matrices(left, query + dimension * 2);
    load_matrices(right, key + dimension * 2);
    multiply(scores[0], left, right[0], right[1]);
    multiply(scores[1], left, right[2], right[3]);
  }
#pragma unroll
  for (int index = 0; index < 8; index++) {
    const int at = first_key + warp * 16 + index / 4 * 8 + lane % 4 * 2 + index % 2;
    float& value = scores[index / 4][index % 4];
    value = at <= newest ? __fmul_rn(value, log2_scale) : MASKED;
  }
}

// The highest score of heads lane / 4 and lane / 4 + 8 among all warps' keys.
__device__ inline float2 highest_scores(const float (&scores)[2][4], Shared& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float2 highest = {fmaxf(fmaxf(scores[0][0], scores[0][1]), fmaxf(scores[1][0], scores[1][1])),
                    fmaxf(fmaxf(scores[0][2], scores[0][3]), fmaxf(scores[1][2], scores[1][3]))};
#pragma unroll
  for (int distance = 1; distance < 4; distance *= 2) {
    highest.x = fmaxf(highest.x, __shfl_xor_sync(0xffffffffu, highest.x, distance));
    highest.y = fmaxf(highest.y, __shfl_xor_sync(0xffffffffu, highest.y, distance));
  }
  if (lane % 4 == 0) {
    shared.highest[warp][lane / 4] = highest.x;
    shared.highest[warp][lane / 4 + 8] = highest.y;
  }
  __syncthreads();
#pragma unroll
  for (int other = 0; other < 4; other++) {
    highest.x = fmaxf(highest.x, shared.highest[other][lane / 4]);
    highest.y = fmaxf(highest.y, shared.highest[other][lane / 4 + 8]);
  }
  return highest;
}

__device__ inline Part attend_split(Shared& shared, int buffer, int split, int newest,
                                    float log2_scale) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float scores[2][4] = {};
  score(scores, shared, buffer, split * SPLIT, newest, log2_scale);
  const float2 highest = highest_scores(scores, shared);
#pragma unroll
  for (int pair = 0; pair < 4; pair++) {
    const float* two = &scores[pair / 2][pair % 2 * 2];
    const float top = pair % 2 ? highest.y : highest.x;
    const int column = warp * 16 + pair / 2 * 8 + lane % 4 * 2;
    *(u32*)(shared.weights + (lane / 4 + pair % 2 * 8) * WEIGHT_BYTES + column * 2) = pack_two(
        power_of_two(__fsub_rn(two[0], top)), power_of_two(__fsub_rn(two[1], top)));
  }
  __syncthreads();
  Part part = {{highest.x, highest.y}};
  float total[4] = {};
  const u32 weights = shared_address(shared.weights) + lane % 16 * WEIGHT_BYTES + lane / 16 * 16;
  const u32 values = shared_address(shared.values[buffer]) + lane % 16 * PIECE_BYTES +
                     warp * (HEAD / 4) * 2 + lane / 16 * 16;
#pragma unroll
  for (int key = 0; key < SPLIT; key += 16) {
    u32 left[4], right[4];
    load_matrices(left, weights + key * 2);
    multiply(total, left, ONES, ONES);
#pragma unroll
    for (int pair = 0; pair < PAIRS; pair++) {
      load_matrices_transposed(right, values + key * PIECE_BYTES + pair * 32);
      multiply(part.context[pair][0], left, right[0], right[1]);
      multiply(part.context[pair][1], left, right[2], right[3]);
    }
  }
  part.total[0] = total[0];
  part.total[1] = total[2];
  return part;
}

__device__ inline void keep(Shared& shared, int index, const Part& part) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int two = 0; two < PAIRS * 4; two++) {
    const float* context = &part.context[two / 4][two / 2 % 2][two % 2 * 2];
    const int column = warp * (HEAD / 4) + two / 2 * 8 + lane % 4 * 2;
    float* place = &shared.contexts[index][lane / 4 + two % 2 * 8][column];
    *(float2*)place = make_float2(context[0], context[1]);
  }
  if (warp == 0 && lane % 4 == 0) {
    shared.moments[index][lane / 4] = make_float2(part.highest[0], part.total[0]);
    shared.moments[index][lane / 4 + 8] = make_float2(part.highest[1], part.total[1]);
  }
}

__device__ inline float divide(float x, float y) {
  float result;
  asm("div.full.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(y > 0.0f ? y : 1.0f));
  return result;
}

__device__ inline void fold_split(Part& all, const Part& part) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float higher = fmaxf(all.highest[half], part.highest[half]);
    const float scale = power_of_two(__fsub_rn(all.highest[half], higher));
    const float split_scale = power_of_two(__fsub_rn(part.highest[half], higher));
#pragma unroll
    for (int tile = 0; tile < PAIRS * 2; tile++)
#pragma unroll
      for (int index = half * 2; index < half * 2 + 2; index++) {
        float& context = all.context[tile / 2][tile % 2][index];
        const float other = part.context[tile / 2][tile % 2][index];
        context = __fmaf_rn(context, scale, __fmul_rn(other, split_scale));
      }
    all.total[half] = __fmaf_rn(all.total[half], scale, __fmul_rn(part.total[half], split_scale));
    all.highest[half] = higher;
  }
}

__device__ inline void store(const Part& all, Half* out) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int two = 0; two < PAIRS * 4; two++) {
    const int head = lane / 4 + two % 2 * 8;
    const int column = warp * (HEAD / 4) + two / 2 * 8 + lane % 4 * 2;
    const float* context = &all.context[two / 4][two / 2 % 2][two % 2 * 2];
    const float total = all.total[two % 2];
    if (head < GROUP)
      *(u32*)(out + head * HEAD + column) =
          pack_two(divide(context[0], total), divide(context[1], total));
  }
}

// Folds one head's splits, ascending, from the blocks of the cluster; stores its context.
__device__ inline void fold_cluster(Shared& shared, int split_count, int head, int dimension, Half* out) {
  float highest = MASKED, total = 0.0f, context = 0.0f;
#pragma unroll 4
  for (int split = 0; split < split_count; split++) {
    const int index = split / CLUSTER, block = split % CLUSTER;
    const float2 moments = load_from_block(&shared.moments[index][head], block);
    const float other = load_from_block(&shared.contexts[index][head][dimension], block);
    const float higher = fmaxf(highest, moments.x);
    const float scale = power_of_two(__fsub_rn(highest, higher));
    const float split_scale = power_of_two(__fsub_rn(moments.x, higher));
    context = __fmaf_rn(context, scale, __fmul_rn(other, split_scale));
    total = __fmaf_rn(total, scale, __fmul_rn(moments.y, split_scale));
    highest = higher;
  }
  out[head * HEAD + dimension] = to_half(divide(context, total));
}

// query [rows, HEADS, HEAD]; keys and values: one layer's cache [places, KV_HEADS, HEAD]; out like
// query. Grid: CLUSTER, KV_HEADS, rows.
extern "C" __global__ void __launch_bounds__(THREADS)
single_rows(const Half* query, const Half* keys, const Half* values, const int* row_slots,
            const int* row_tokens, const int* row_positions, const int* row_limits,
            const int* slot_positions, const int* slot_ended, const int* tables, int table_width,
            float log2_scale, Half* out) {
  extern __shared__ __align__(128) unsigned char memory[];
  Shared& shared = *(Shared*)memory;
  let_next_start();
  const int row = blockIdx.z, rank = blockIdx.x;
  const int* table = tables;
  const Rows rows = {row_slots,      row_tokens, row_positions, row_limits,
                     slot_positions, slot_ended, tables,        table_width};
  const int newest = newest_position(rows, row, &table);
  const int split_count = (newest + SPLIT) / SPLIT;
  const int own_count = split_count > rank ? (split_count - rank - 1) / CLUSTER + 1 : 0;
  const Cache cache = {keys, values, table, newest};
#pragma unroll
  for (int index = 0; index < BUFFERS; index++) {
    if (index < own_count) cache.bring(shared, index, rank + index * CLUSTER, true);
    commit_copies();
  }
  wait_for_last();
  const long long first_head = ((long long)row * KV_HEADS + blockIdx.y) * GROUP;
  for (int piece = threadIdx.x; piece < GROUP * (HEAD / 8); piece += THREADS)
    *(uint4*)(shared.query + piece / (HEAD / 8) * PIECE_BYTES + piece % (HEAD / 8) * 16) =
        ((const uint4*)(query + first_head * HEAD))[piece];
  const int newest_index = (split_count - 1) / CLUSTER;
  if (own_count > 0 && (split_count - 1) % CLUSTER == rank && newest_index < BUFFERS)
    cache.take_newest(shared, newest_index);
  Part all = {{MASKED, MASKED}};
  for (int index = 0; index < own_count; index++) {
    wait_for_copies<BUFFERS - 1>();
    __syncthreads();
    const int split = rank + index * CLUSTER;
    const Part part = attend_split(shared, index % BUFFERS, split, newest, log2_scale);
    if (CLUSTER > 1) keep(shared, index, part);
    else fold_split(all, part);
    __syncthreads();
    if (index + BUFFERS < own_count)
      cache.bring(shared, index + BUFFERS, split + BUFFERS * CLUSTER, false);
    commit_copies();
  }
  if (CLUSTER == 1) {
    if (newest >= 0) store(all, out + first_head * HEAD);
    return;
  }
  meet_cluster();
  const int first = rank * HEADS_PER_BLOCK, last = min(first + HEADS_PER_BLOCK, GROUP);
  for (int item = threadIdx.x; item < (last - first) * HEAD && newest >= 0; item += THREADS)
    fold_cluster(shared, split_count, first + item / HEAD, item % HEAD, out + first_head * HEAD);
  // Nobody leaves while another may still read its shared memory.
  meet_cluster();
}
