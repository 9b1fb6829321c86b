// What the kernels need of the machine: half precision, asynchronous copies and their barriers,
// tensor cores, and the hand-over from one kernel of a chain to the next.

typedef unsigned int u32;
typedef unsigned long long u64;
// The bits of a number in half precision: fp16, or bf16 with BFLOAT16.
typedef unsigned short Half;

#if BFLOAT16
#define HALF_NAME "bf16"
#define ONES 0x3f803f80u
#else
#define HALF_NAME "f16"
#define ONES 0x3c003c00u
#endif

__device__ inline Half to_half(float value) {
  Half bits;
  asm("cvt.rn." HALF_NAME ".f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

__device__ inline u32 pack_two(float low, float high) {
  return (u32)to_half(low) | (u32)to_half(high) << 16;
}

__device__ inline uint2 pack_four(float4 four) {
  return make_uint2(pack_two(four.x, four.y), pack_two(four.z, four.w));
}

// Every kernel of a chain waits for the one before it, so that a chain stays in order over any
// number of links; what it does before, it does while that one still runs.
__device__ inline void wait_for_last() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ inline void let_next_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

__device__ inline u32 shared_address(const void* place) {
  return (u32)__cvta_generic_to_shared(place);
}

__device__ inline void init_barrier(u64* barrier, u32 arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}

__device__ inline void arrive(u64* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}

// Arrives when the copies that this thread has started so far have ended.
__device__ inline void arrive_with_copies(u64* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(
                   shared_address(barrier))
               : "memory");
}

__device__ inline void wait_for_phase(u64* barrier, u32 parity) {
  u32 done = 0;
  while (!done)
    asm volatile(
        "{\n.reg .pred ready;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 ready, [%1], %2;\n"
        "selp.u32 %0, 1, 0, ready;\n}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
}

// Starts a copy of 16 bytes, at addresses that are multiples of it, into shared memory.
__device__ inline void copy_to_shared(void* target, const void* source) {
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(shared_address(target)),
               "l"(source)
               : "memory");
}

// The same, or 16 zeros where `bytes` is 0.
__device__ inline void copy_or_zero(void* target, const void* source, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(target)),
               "l"(source), "r"(bytes)
               : "memory");
}

// A thread's copies are waited for by groups: all but the last `pending` of them.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Returns when all threads of all blocks of a cluster are here; they see each other's stores.
__device__ inline void meet_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

// What block `block` of the cluster has where this one has `place`.
__device__ inline u32 address_in_block(const void* place, int block) {
  u32 address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(shared_address(place)), "r"(block));
  return address;
}
__device__ inline float load_from_block(const float* place, int block) {
  float value;
  asm volatile("ld.shared::cluster.f32 %0, [%1];"
               : "=f"(value)
               : "r"(address_in_block(place, block)));
  return value;
}
__device__ inline float2 load_from_block(const float2* place, int block) {
  float2 value;
  asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
               : "=f"(value.x), "=f"(value.y)
               : "r"(address_in_block(place, block)));
  return value;
}

// Four 8 x 8 matrices of half precision; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(u32 (&matrix)[4], u32 row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(row_address));
}

// The same, each matrix transposed.
__device__ inline void load_matrices_transposed(u32 (&matrix)[4], u32 row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
               : "r"(row_address));
}

// sums [16, 8] plus left [16, 16] times right [16, 8].
__device__ inline void multiply(float (&sums)[4], const u32 (&left)[4], u32 right_0, u32 right_1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32." HALF_NAME "." HALF_NAME
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_0),
                 "r"(right_1));
}
