// SPDX-License-Identifier: Apache-2.0
// kernels.hpp - the copy kernels of the cuda back end, as the fake driver runs them.
#pragma once

#include "kernels/job.hpp"

namespace fake_cuda {

enum class Kernel { kBulk4, kBulk8, kVector };

// Moves what the job says, one combination after the other. Aborts the process on what the kernel itself could not do: a copy
// larger than a stage, an address or size that is no multiple of 16, memory of a GPU that `device` has no peer access to.
void run_job(Kernel kernel, const cuda_backend::Job& job, int device);

}  // namespace fake_cuda
